"""A row for each Python and set of versions: what was installed, what held; no environment outlives its row."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from versions import command, environment, row
from versions.environment import Environment, NotInstalled

SUITE = '<testsuites><testsuite tests="{}" failures="{}" errors="1" skipped="1">{}</testsuite></testsuites>'
FAILED_CASE = '<testcase name="test_it"><failure/></testcase>'
VERSIONS = {"torch": "2.11.0", "timm": "1.0.31", "pillow": "11.3.0"}


class Machine:
    """Has Python 3.11 only; programs do as told."""

    def __init__(self) -> None:
        self.failures, self.steps, self.broken, self.code = 0, row.STEPS, "", 0
        self.environments: list[Path] = []
        self.bounds: list[str] = []

    def make(self, uv: Path, interpreter: Path, bound: Any, project: Path, folder: Path) -> Environment:
        assert not any(other.exists() for other in self.environments), "the environment of another row is still there"
        folder.mkdir()
        self.environments.append(folder)
        self.bounds.append(bound)
        if self.broken:
            raise NotInstalled(self.broken)
        return Environment(python=folder / "python", versions=VERSIONS)

    def finished(self, words: Sequence[Any], **options: Any) -> subprocess.CompletedProcess[str]:
        text = " ".join(map(str, words))
        if "train.py" in text:
            (run := self.environments[-1] / "run").mkdir()
            lines = [f"{step},0.5" for step in range(1, self.steps + 1)]
            (run / "metrics.csv").write_text("\n".join(["step,train/loss", *lines]) + "\n")
        elif "pytest" in text:
            assert "not gpu" in text
            suite = SUITE.format(9 + self.failures, self.failures, FAILED_CASE).replace(
                'errors="1"', f'errors="{int(self.failures > 1)}"'
            )
            (self.environments[-1] / "tests.xml").write_text(suite)
            return subprocess.CompletedProcess(list(words), self.code, "stopped early\n", "")
        return subprocess.CompletedProcess(list(words), 0, "3.11.9\n", "")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(command.signal, "signal", lambda number, handler: None)
    monkeypatch.setattr(command, "find_uv", lambda work: Path("uv"))
    monkeypatch.setattr(row, "find_python", lambda uv, python: Path("python") if python == "3.11" else None)
    monkeypatch.setattr(row, "make_environment", machine.make)
    monkeypatch.setattr(row, "finished", machine.finished)
    return machine


def test_rows_that_hold(machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.main(["--python", "3.11", "--logs", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.count("|") for line in lines] == [14] * 4
    assert lines[2].startswith("| 3.11.9 | lowest | 2.11.0 | – | – | 1.0.31 |") and lines[3].startswith(
        "| 3.11.9 | newest"
    )
    assert all("| 8 | 0 | 20 |" in line and line.endswith("| yes |") for line in lines[2:])
    assert machine.bounds == ["lowest", "newest"] and not any(folder.exists() for folder in machine.environments)
    kept = (tmp_path / "versions.txt").read_text()
    assert "# Python 3.11.9, lowest: held\npillow==11.3.0\n" in kept
    assert (tmp_path / "3.11.9_lowest_tests.log").is_file() and (tmp_path / "3.11.9_newest_training.log").is_file()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"failures": 2}, "3 tests failed; see "),
        ({"steps": 19}, "| 19 |"),
        ({"code": 2}, "tests: stopped early"),
        ({"broken": "No solution found"}, "3.11.9 lowest: No solution found"),
    ],
)
def test_what_does_not_hold_ends_with_1(
    wrong: dict[str, Any], message: str, machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vars(machine).update(wrong)
    with pytest.raises(SystemExit) as ended:
        command.main(["--python", "3.11", "--of", "lowest", "--logs", str(tmp_path)])
    assert ended.value.code == 1 and not any(folder.exists() for folder in machine.environments)
    printed = capsys.readouterr().out
    assert message in printed and "| no |" in printed


def test_a_missing_python_is_a_row(machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--python", "3.13", "3.11", "--of", "newest", "--logs", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "| 3.13 | newest | – |" in printed and "3.13 newest: this machine has no Python 3.13" in printed
    assert "| yes |" in printed


def test_versions_come_from_the_bounds_of_the_project(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, root: Path
) -> None:
    commands: list[list[str]] = []

    def finished(words: Sequence[Any], **options: Any) -> subprocess.CompletedProcess[str]:
        commands.append(list(map(str, words)))
        return subprocess.CompletedProcess(list(words), 0, "{}", "")

    monkeypatch.setattr(environment, "finished", finished)
    environment.make_environment(Path("uv"), Path(sys.executable), "lowest", root, tmp_path)
    install = next(words for words in commands if "--resolution" in words)
    assert install[install.index("--resolution") + 1] == "lowest-direct" and "--all-extras" in install
    assert install[install.index("-r") + 1] == str(root / "pyproject.toml")
    assert install[install.index("--cache-dir") + 1].startswith(str(tmp_path))


def test_why_nothing_could_be_installed(tmp_path: Path) -> None:
    with pytest.raises(NotInstalled, match="exit code 1"):
        environment.make_environment(Path("/bin/false"), Path(sys.executable), "newest", tmp_path, tmp_path)


def test_every_requirement_has_a_lowest_version(root: Path) -> None:
    """Without one, the lowest would be a release of long ago that nobody has tried."""
    import tomllib

    from packaging.requirements import Requirement

    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    for line in [*project["dependencies"], *extras]:
        assert any(one.operator == ">=" for one in Requirement(line).specifier), line
