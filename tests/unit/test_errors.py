"""A message is one that a person can read, whatever it quotes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from blip2_train.cli.check_report import broken_lines, show
from blip2_train.errors import LONGEST, CheckpointMismatch, ConfigError
from blip2_train.system.records import check_record
from blip2_train.types import RejectedSample


def test_a_long_value_is_quoted_by_its_ends() -> None:
    text = str(ConfigError(f"steps is {'x' * 20_000}; give a whole number"))
    assert len(text) == LONGEST and text.startswith("steps is xx") and text.endswith("xx; give a whole number")
    assert " … " in text and str(ConfigError("steps is 'x'")) == "steps is 'x'"


@dataclass
class Size:
    width: int = 1


@pytest.mark.parametrize("value", [{"\ud83d": 1}, {"width": "\ud83d"}, {"width": {"\ud83d": 1}}])
def test_half_a_character_in_a_record_is_one_line(value: dict[str, object]) -> None:
    with pytest.raises(CheckpointMismatch, match=r"m\.json cannot be read"):
        check_record(value, Size, Path("m.json"), "get it again")


def test_names_with_line_ends_begin_no_line_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    broken = [RejectedSample(source="s.tar", key="a\nerror: nothing is wrong", reason="unreadable image", detail="b\r")]
    show(Console(), broken_lines(broken))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and r"a\nerror: nothing is wrong" in lines[0] and r"(b\r)" in lines[0]
