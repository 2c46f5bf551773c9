from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from blip2_train.config.value_types import builds_misfit, misfit, nearest


@dataclass
class Settings:
    size: int


class Finer(Settings):
    pass


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (1, int),
        (1, float),
        (1e-4, float),
        (True, bool),
        ("a", str),
        ("a", Path),
        (None, int | None),
        ([1, 2], tuple[int, int]),
        ([1, 2, 3], tuple[int, ...]),
        ([], list[int]),
        (["a"], str | Sequence[str]),
        ({"a": 1}, dict[str, Any]),
        ({"a": 1}, Mapping[str, int]),
        ("b", Literal["a", "b"]),
        (16, Literal[16] | Literal["16-mixed"] | None),
        ({"_target_": "x"}, Settings),
        (object(), Any),
    ],
)
def test_fits(value: Any, annotation: Any) -> None:
    assert misfit(value, annotation) is None


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (1.5, int, "a whole number"),
        (True, int, "a whole number"),
        (True, float, "a number"),
        ("1e-4x", float, "a number"),
        (1, bool, "true or false"),
        (1, str, "a text"),
        (None, str, "a text"),
        ("a", int | None, "a whole number or null"),
        ([1], tuple[int, int], "a list of 2 values"),
        ([1, "a"], tuple[int, int], "a list, each a whole number"),
        ("a", list[str], "a list"),
        ([], dict[str, int], "a mapping"),
        ("fulll", Literal["full", "c"], "one of full, c (did you mean full?)"),
        (1, Literal[True], "one of True"),
        ("a", Settings, "a mapping with _target_"),
        ({"size": 1}, Settings, "a mapping with _target_"),
    ],
)
def test_does_not_fit(value: Any, annotation: Any, expected: str) -> None:
    assert (misfit(value, annotation) or "").startswith(expected)


def test_what_is_built_must_be_of_the_class() -> None:
    assert builds_misfit(Settings, Settings) is None
    assert builds_misfit(Finer, Settings | None) is None
    assert builds_misfit(dict, Settings) == "Settings"
    assert builds_misfit(dict, dict[str, Any]) is None
    assert builds_misfit(len, Settings) is None


def test_nearest() -> None:
    assert nearest("stepz", ["seed", "steps"]) == "steps"
    assert nearest("xyz", ["seed", "steps"]) is None
