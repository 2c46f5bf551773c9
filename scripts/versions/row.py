"""One row: tests of units and of parity, and 20 steps of training, with one set of versions on one Python."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from blip2_train.evaluation.run_metrics import METRICS_FILE, read_metrics
from versions.environment import (
    Bound,
    Environment,
    NotInstalled,
    find_python,
    finished,
    last_line,
    make_environment,
)

STEPS = 20
TESTS = ("tests/unit", "tests/parity")


@dataclass(kw_only=True)
class Row:
    """What came out."""

    python: str
    bound: Bound
    versions: dict[str, str] = field(default_factory=dict)
    passed: int = 0
    failed: int = 0
    """With tests that could not even be collected."""
    steps: int = 0
    seconds: float = 0.0
    problem: str = ""
    """The first thing that went wrong, in one line."""

    @property
    def held(self) -> bool:
        """Whether everything is as it has to be."""
        return not self.problem and self.passed > 0 and self.failed == 0 and self.steps == STEPS


def try_row(uv: Path, python: str, bound: Bound, tests: Sequence[str], project: Path, work: Path, logs: Path) -> Row:
    """Make the environment, run tests and training in it, and delete it.

    Args:
        uv: The program that installs.
        python: `3.12`, or the path of an interpreter.
        bound: Which versions.
        tests: Arguments of pytest: which tests.
        project: Folder of `pyproject.toml`.
        work: A folder for the environment.
        logs: A folder for the output of pytest and of training, which stays.
    """
    row, started, folder = Row(python=python, bound=bound), time.monotonic(), work / "row"
    interpreter = find_python(uv, python)
    if interpreter is None:
        row.problem = f"this machine has no Python {python}"
        return row
    row.python = finished([interpreter, "-c", "import platform; print(platform.python_version())"]).stdout.strip()
    try:
        environment = make_environment(uv, interpreter, bound, project, folder)
        row.versions = dict(environment.versions)
        name = f"{row.python}_{bound}"
        _train(row, environment, project, folder, logs / f"{name}_training.log")
        _test(row, environment, tests, project, folder, logs / f"{name}_tests.log")
    except NotInstalled as error:
        row.problem = str(error)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    row.seconds = time.monotonic() - started
    return row


def _train(row: Row, environment: Environment, project: Path, folder: Path, log: Path) -> None:
    settings = ["experiment=demo_stage1", "trainer=cpu", f"steps={STEPS}", "optim.warmup_steps=2", "validate_every=10"]
    settings += ["checkpoint_every=10", f"paths.run_dir={folder / 'run'}"]
    done = finished([environment.python, project / "scripts" / "train.py", *settings], cwd=project)
    log.write_text(done.stdout + done.stderr, "utf-8")
    reached = read_metrics(folder / "run" / METRICS_FILE)
    row.steps = max((int(logged["step"]) for logged in reached if logged.get("train/loss")), default=0)
    if done.returncode:
        row.problem = f"training: {last_line(done.stderr)}"


def _test(row: Row, environment: Environment, tests: Sequence[str], project: Path, folder: Path, log: Path) -> None:
    report = folder / "tests.xml"
    options = [
        "-q",
        "-m",
        "not gpu and not slow",
        "-n",
        "auto",
        "--dist",
        "loadfile",
        "-p",
        "no:cacheprovider",
        f"--junitxml={report}",
    ]
    done = finished([environment.python, "-m", "pytest", *options, *tests], cwd=project)
    log.write_text(done.stdout + done.stderr, "utf-8")
    if done.returncode not in (0, 1):  # 1 = some failed, anything else = pytest did not come to its end
        row.problem = row.problem or f"tests: {last_line(done.stderr or done.stdout) or f'exit code {done.returncode}'}"
    if not report.is_file():
        return
    (suite,) = ElementTree.parse(report).getroot().iter("testsuite")
    count = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    row.failed = count["failures"] + count["errors"]
    row.passed = count["tests"] - row.failed - count["skipped"]
    wrong = next((case for case in suite.iter("testcase") if case.find("failure") or case.find("error")), None)
    if row.failed and not row.problem:
        row.problem = f"{row.failed} tests failed; see {log}" + (f" ({wrong.get('name')})" if wrong is not None else "")
