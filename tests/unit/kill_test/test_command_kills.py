"""Kills of commands: what is half under a final name, or different in the end, is seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from kill_test import command_kills
from kill_test.command_kills import Work, digests
from kill_test.moments import Moment
from kill_test.parts import Part
from kill_test.report import show
from kill_test.watching import CommandKill, Kill

SLOW = "import sys, time; from pathlib import Path; place = Path(sys.argv[-1]); "
WHOLE = SLOW + (
    "away = place.with_name('.unfinished'); away.mkdir(exist_ok=True); "
    "[((away / str(n)).write_text('x' * n), time.sleep(0.05)) for n in range(8)]; away.rename(place)"
)
HALF = SLOW + "place.mkdir(exist_ok=True); [((place / str(n)).write_text('x' * n), time.sleep(0.05)) for n in range(8)]"
CUT = SLOW + (
    "place.mkdir(exist_ok=True); file = (place / 'a').open('w'); "
    "[(file.write('x'), file.flush(), time.sleep(0.05)) for n in range(8)]"
)
ONCE = SLOW + (
    "place.mkdir(exist_ok=True); old = (place / 'a.0.jsonl').exists(); (place / 'a.0.jsonl').write_text('begun'); "
    "time.sleep(0.3); (place / 'a').write_text(str(old))"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "goes_on", "half", "different"),
    [
        (WHOLE, False, False, False),
        (HALF, False, True, False),
        (CUT, True, True, False),
        (ONCE, True, False, True),
    ],
)
def test_half_written_and_different_files_are_reported(
    code: str, goes_on: bool, half: bool, different: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import random

    def start(self: Work, output: Path) -> command_kills.LaunchedCommand:
        command = [command_kills.sys.executable, "-IS", "-c", code, str(output)]
        return command_kills.LaunchedCommand(command, tmp_path / "log")

    monkeypatch.setattr(Work, "start", start)
    work = Work(name="w", program="", arguments=lambda folder: [], goes_on=goes_on)
    kills, wrong, other = command_kills._kill(work, tmp_path / "w", 3, random.Random(0))
    assert len(kills) == 3 and kills[0].moment.startswith("change") and kills[2].moment == "anywhere"
    assert bool(wrong) == half, wrong
    assert bool(other) == different, other


def test_times_and_unfinished_files_do_not_count(tmp_path: Path) -> None:
    for name in ("a.json", ".b.unfinished", "log.log", "said.0.jsonl"):
        (tmp_path / name).write_text(json.dumps({"created": name, "score": 1}))
    first = digests(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps({"created": "later", "score": 1}))
    assert list(first) == ["a.json"] and digests(tmp_path) == first
    (tmp_path / "a.json").write_text(json.dumps({"created": "later", "score": 2}))
    assert digests(tmp_path) != first


@pytest.mark.parametrize(
    ("kill", "words"),
    [
        (
            CommandKill(command="export", moment="change 3", seconds=1, unfinished=2, whole=0),
            "1 kills (1 export), 1 left",
        ),
        (
            Kill(moment=Moment(kind="start", step=1, wait=0), processes=2, step=3, checkpoint=0, cut=False),
            "1 kills (1 start), 0 left a checkpoint half written",
        ),
    ],
)
def test_the_table(kill: Callable[..., object], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    show(Part(name="commands", kills=[kill], problems={"half": [], "lost": ["export: a"]}))  # type: ignore[list-item]
    printed = capsys.readouterr().out
    assert words in printed and "half: as it has to be" in printed and "lost: DIFFERENT: export: a" in printed
