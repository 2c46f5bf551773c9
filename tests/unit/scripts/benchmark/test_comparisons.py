"""The table of comparisons: what is held, what is written, and what happens to a part that fails."""

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from benchmark.command import main
from benchmark.comparisons import command
from benchmark.comparisons.comparison import Bound, Comparison
from benchmark.comparisons.parts import PARTS, Part
from benchmark.comparisons.retrieval import by_sorting, by_topk, compare_reranking

from blip2_train.errors import ConfigError


@pytest.mark.parametrize(
    ("bound", "ratio", "held"),
    [
        ("at most", 0.65, True), ("at most", 0.66, False), ("at least", 0.65, True), ("at least", 0.64, False),
        ("within", 0.7, True), ("within", 1.3, True), ("within", 1.4, False),
    ],
)  # fmt: skip
def test_held(bound: Bound, ratio: float, held: bool) -> None:
    assert Comparison(name="x", what="", ours="", other="", ratio=ratio, target=0.65, bound=bound).held is held


def test_table_and_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missed = Comparison(name="first", what="reading", ours="3 s", other="2 s", ratio=1.5, target=0.5)
    parts = {name: Part(module="unused", names=(name,)) for name in ("first", "second")}
    monkeypatch.setattr(command, "PARTS", parts)
    monkeypatch.setattr(command, "_measure", lambda name, *_: ([missed], "") if name == "first" else ([], "broken"))
    main(["part=comparisons", f"json={tmp_path / 'x.json'}"])
    output = capsys.readouterr().out
    assert "reading" in output and "1.500" in output and "at most 0.5" in output and "second: broken" in output
    assert json.loads((tmp_path / "x.json").read_text()) == {"first": 1.5}


def test_a_process_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "PARTS", {"x": Part(module="none", names=("x",))})
    measured, reason = command._measure("x", tmp_path / "x.json", 60.0)
    assert measured == [] and reason == "ended with exit code 1"


@pytest.mark.slow
@pytest.mark.parametrize("hangs", [True, False])
def test_what_a_part_started_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangs: bool) -> None:
    """A part that is stopped at its limit, and one that is killed, each with a child that would stay."""
    child = tmp_path / "child"
    end = "sleep 60" if hangs else "kill -9 $$"
    (tmp_path / "python").write_text(f"#!/bin/sh\nsleep 60 &\necho $! > '{child}'\n{end}\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    measured, reason = command._measure("beam", tmp_path / "x.json", 2.0 if hangs else 30.0)
    assert measured == [] and reason == ("not finished after 2 s" if hangs else "ended with exit code -9")
    assert _ended(int(child.read_text()))


def _ended(process: int) -> bool:
    """Whether a process ends within seconds; one that nobody has waited for counts as ended."""
    for _ in range(100):
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False)
        if not state.stdout.strip() or state.stdout.startswith("Z"):
            return True
        time.sleep(0.05)
    return False


def test_the_time_of_all_parts_is_limited(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = {name: Part(module="unused", names=(name,), seconds=600) for name in ("first", "second", "third")}
    now, limits, path = [0.0], [], tmp_path / "x.json"

    def measure(name: str, _: Path, limit: float) -> tuple[list[Comparison], str]:
        limits.append(limit)
        assert set(json.loads(path.read_text())) == set(list(parts)[: len(limits) - 1]), "written after each part"
        now[0] += limit
        return [Comparison(name=name, what="", ours="", other="", ratio=1.0, target=1.0)], ""

    monkeypatch.setattr(command, "PARTS", parts)
    monkeypatch.setattr(command, "_measure", measure)
    monkeypatch.setattr(command, "time", SimpleNamespace(monotonic=lambda: now[0]))
    main(["part=comparisons", f"json={path}"])
    assert limits == [600, 300] and set(json.loads(path.read_text())) == {"first", "second"}
    assert "third: not begun, as the 15 minutes of all parts are over; without third" in capsys.readouterr().out


def test_a_file_that_cannot_be_written_is_refused_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(command, "_measure", lambda *_: pytest.fail("measured"))
    with pytest.raises(ConfigError, match=r"cannot be written \(Is a directory\); give another file"):
        main(["part=comparisons", f"json={tmp_path}"])
    with pytest.raises(ConfigError, match=r"cannot be written \(File name too long\)"):
        main(["part=comparisons", f"json={tmp_path / ('x' * 300)}"])


def test_unknown_part() -> None:
    with pytest.raises(ConfigError, match="only=nothing: there is no such part"):
        main(["part=comparisons", "only=nothing"])


def test_every_ratio_has_one_part() -> None:
    names = [name for part in PARTS.values() for name in part.names]
    assert len(names) == len(set(names))


@pytest.mark.slow
def test_reranking_and_shortlists() -> None:
    assert compare_reranking().held
    similarity = torch.randint(0, 40, (60, 300), generator=torch.Generator().manual_seed(0)).float()
    for ours, other in zip(by_topk(similarity), by_sorting(similarity), strict=True):
        assert torch.equal(ours.indices, other.indices) and torch.equal(ours.values, other.values)
