"""The command of a visit to a GPU: its settings, packages, limits and report, with no GPU."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from pathlib import Path

import pytest
from gpu_visit import packages
from gpu_visit.command import main
from gpu_visit.goals import goal_lines
from gpu_visit.options import ROOT, OptionError, VisitOptions, as_arguments, read_options
from gpu_visit.packages import unpack_missing
from gpu_visit.parts import PARTS
from gpu_visit.report import as_markdown
from gpu_visit.results import read_rows, writer
from gpu_visit.running import run_part

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "scripts")])}


def wheel(folder: Path, name: str, version: str, module: str) -> None:
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{module}.py", f"version = {version!r}\n")


def test_settings_are_read_and_handed_on() -> None:
    options = read_options(["device=cpu", "size=small", "parts=facts,towers"])
    assert options.small and read_options(as_arguments(options)) == options


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("device=tpu", "use cuda or cpu"), ("size=large", "use full or small"), ("minutes=soon", "number of minutes"),
        ("minutes=nan", "number of minutes"), ("minutes=-1", "number of minutes"), ("minutes=inf", "number of minutes"),
        ("speed=1", "write <setting>=<value>"), ("facts", "write <setting>=<value>"),
    ],
)  # fmt: skip
def test_wrong_settings_are_named(argument: str, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        read_options([argument])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["device=cpu", "parts=facts,dance"], "parts=dance"), (["pack", "ruby=3"], "python=<version>")],
)
def test_errors_are_one_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert words in captured.err and captured.err.count("\n") == 1


def test_the_limits_are_those_of_nine_minutes() -> None:
    assert sum(part.seconds for part in PARTS.values()) <= 540
    for part in PARTS.values():
        assert (ROOT / "scripts" / Path(*part.module.split("."))).with_suffix(".py").is_file()


def test_only_what_is_missing_or_too_old_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed, folder = tmp_path / "packed", tmp_path / "unpacked"
    packed.mkdir()
    for name, version, module in [
        ("surely_absent", "1.2", "surely_absent"), ("numpy", "99.0", "numpy_again"), ("pluggy", "98.0", "pluggy_again"),
        ("missing_and_optional", "3", "optional"),
    ]:  # fmt: skip
        wheel(packed, name, version, module)
    monkeypatch.setitem(packages.LOWEST, "pluggy", "98.0")
    monkeypatch.setattr(packages, "OPTIONAL", ("missing-and-optional",))
    unpacked = unpack_missing(packed, folder)
    assert unpacked == ["missing-and-optional 3", "pluggy 98.0", "surely-absent 1.2"]
    assert {path.name for path in folder.rglob("*.py")} == {"surely_absent.py", "pluggy_again.py", "optional.py"}
    assert (folder / "missing-and-optional" / "optional.py").is_file()


def test_lower_bounds_are_those_of_the_project() -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    for name, lowest in packages.LOWEST.items():
        if f'"{name}>=' in project:
            assert f'"{name}>={lowest}' in project, name


def test_a_part_is_stopped_at_its_limit_and_keeps_its_rows(tmp_path: Path) -> None:
    part = run_part("facts", VisitOptions(device="cpu", size="small"), 0.05, ENVIRONMENT, tmp_path)
    assert part["state"] == "stopped" and "limit" in part["reason"] and part["rows"] == []
    rows = tmp_path / "rows.jsonl"
    writer(rows)("speed", plan="shared", ms=1.5)
    with rows.open("a") as file:
        file.write('{"table": "spe')  # it was stopped here
    assert read_rows(rows) == [{"table": "speed", "plan": "shared", "ms": 1.5}]


@pytest.mark.slow
def test_a_part_that_fails_has_a_reason(tmp_path: Path) -> None:
    part = run_part("facts", VisitOptions(), 60, {**ENVIRONMENT, "PYTHONPATH": str(ROOT / "scripts")}, tmp_path)
    assert part["state"] == "failed" and part["reason"]
    assert [path.name for path in tmp_path.iterdir()] == ["visit.log"]


def step(plan: str, speed: float, share: float, batch: int = 100) -> dict[str, object]:
    return {"table": "stage 1", "plan": plan, "batch": batch, "samples/s": speed, "share of ceiling": share}


def test_goals_are_held_or_not() -> None:
    rows = [step("released_whole", 300.0, 0.3), step("released", 400.0, 0.4), step("shared", 650.0, 0.52)]
    lines = goal_lines({"stage1": {"rows": [*rows, step("shared", 700.0, 0.56, 256)]}})
    assert [line.partition(":")[0] for line in lines] == ["held", "held", "not held"]
    assert "56%" in lines[0] and "2.17 x the released plan (" in lines[1] and "1.62 x" in lines[2]
    assert goal_lines({"stage1": {"rows": [{"table": "stage 1", "plan": "shared", "why": "out of memory"}]}}) == []
    tests = [{"table": "tests", "test": "a", "outcome": "passed"}, {"table": "tests", "test": "b", "outcome": "failed"}]
    assert goal_lines({"tests": {"rows": tests}}) == ["not held: 1 of 2 tests passed or were skipped (goal: all)"]


def test_the_page_has_a_table_for_each_name() -> None:
    rows = [
        {"table": "one", "what": "a|b", "value": 1.23456},
        {"table": "two", "x": None},
        {"table": "one", "more": "\n2"},
    ]
    part = {"state": "done", "reason": "", "seconds": 1.0, "rows": rows}
    page = as_markdown(VisitOptions(), {"facts": part}, ["held: this"])
    assert "- held: this" in page and "| facts | done | 1 |  |" in page
    assert "## one\n\n| what | value | more |\n|--|--|--|\n| a\\|b | 1.235 |  |\n|  |  | 2 |" in page


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_first_part_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["device=cpu", "size=small", "parts=facts", f"out={tmp_path}", f"packed={tmp_path}"]) == 0
    whole = json.loads((tmp_path / "visit.json").read_text())
    facts = {row["what"]: row["value"] for row in whole["parts"]["facts"]["rows"]}
    assert whole["parts"]["facts"]["state"] == "done", whole
    assert facts["python"] == sys.version.split()[0] and facts["fp32 product, TFLOP/s"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["visit.json", "visit.log", "visit.md"]
    assert "## at best" in capsys.readouterr().out
