"""Settings of commands: one grammar, every key known, every value of its field's type."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from blip2_train.config.key_values import READ, flags_as_settings, read_settings, split_settings
from blip2_train.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Options:
    source: str | Sequence[str] = "x"
    names: Sequence[str] = ()
    seeds: tuple[int, ...] = ()
    count: int = 1
    share: float = 0.5
    most: int | None = 3
    all: bool = False
    kind: Literal["drop", "keep"] = "drop"
    folder: Path | None = None
    size: tuple[int, int] = field(default=(1, 1), metadata={READ: lambda text: tuple(map(int, text.split("x")))})


@dataclass(frozen=True, kw_only=True)
class Needed:
    output: str


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("source={00..99}.tar", "{00..99}.tar"),
        ("source=a=b c.tar", "a=b c.tar"),
        ("source=[a.tar, b.tar]", ["a.tar", "b.tar"]),
        ("source='a b'", "a b"),
        ("source=5", "5"),
        ("names=a,b", ["a", "b"]),
        ("names=[a]", ["a"]),
        ("names=[]", []),
        ("seeds=1,2", (1, 2)),
        ("seeds=[3]", (3,)),
        ("count=1_000", 1000),
        ("share=1e-4", 1e-4),
        ("share=2", 2.0),
        ("most=null", None),
        ("all=True", True),
        ("kind=keep", "keep"),
        ("folder=/x/y", Path("/x/y")),
        ("folder=null", None),
        ("size=3x4", (3, 4)),
    ],
)
def test_values_follow_the_type_of_their_field(setting: str, value: Any) -> None:
    (options,) = read_settings([setting], (Options,), "it")
    result = getattr(options, setting.partition("=")[0])
    assert result == value and type(result) is type(value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["count=2.5"], "count=2.5: expected a whole number"),
        (["count=1,2"], "count=1,2: expected a whole number"),
        (["most=many"], "most=many: expected a whole number or null"),
        (["seeds=1,x"], "seeds=x: expected a whole number"),
        (["all=yes"], "all=yes: expected true or false"),
        (["kind=kep"], "did you mean keep"),
        (["count="], "count has no value; write count=<value>"),
        (["count"], "count has no value"),
        (["cuont=1"], "there is no setting 'cuont'; did you mean 'count'?"),
        (["count=1", "count=2"], "count is given twice"),
        ([], "output= is missing; see it --help"),
    ],
)
def test_what_cannot_be_used_is_named(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_settings(settings, (Options, Needed), "it")


def test_own_settings_are_taken_out_of_those_of_a_configuration() -> None:
    line = ["count=2", "experiment=demo_stage1", "+optim.lr=1e-4", "count=3", "--help", "steps=5", "counts.x=1"]
    options, rest = split_settings(line, Options)
    assert options.count == 3
    assert rest == ["experiment=demo_stage1", "+optim.lr=1e-4", "--help", "steps=5", "counts.x=1"]


def test_usual_values_depend_on_what_is_given() -> None:
    def usual(given: Any) -> dict[str, Any]:
        return {"share": 0.9 if given.get("all") else 0.1, "count": 7}

    assert split_settings(["all=true", "count=2"], Options, usual)[0] == Options(all=True, share=0.9, count=2)
    assert split_settings([], Options, usual)[0] == Options(share=0.1, count=7)


def test_a_misspelt_own_setting_is_not_handed_on() -> None:
    with pytest.raises(ConfigError, match="did you mean 'folder'"):
        split_settings(["foldr=x"], Options)
    assert split_settings(["foldr=x", "folder=y"], Options, without=("folder",))[1] == ["foldr=x", "folder=y"]


def test_flags_are_other_forms_of_settings() -> None:
    flags = {"--all": "all=true", "--count": "count="}
    assert flags_as_settings(["--count=3", "x", "--all"], flags) == ["count=3", "x", "all=true"]
    with pytest.raises(ConfigError, match="count has no value"):
        read_settings(flags_as_settings(["--count"], flags), (Options,), "it")
    with pytest.raises(ConfigError, match="--all takes no value"):
        flags_as_settings(["--all=false"], flags)
