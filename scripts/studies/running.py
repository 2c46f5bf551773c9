"""Makes the runs of a study with the ordinary commands; what is finished is kept, what was stopped goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from blip2_train.checkpoints.training_checkpoints import ALL_NAMES, CHECKPOINTS
from blip2_train.config.overrides import quoted
from blip2_train.data.prepare.engine import cores
from blip2_train.errors import TrainingError
from blip2_train.system.atomic_write import write_checked
from blip2_train.system.screen import echo
from studies.plan import PlannedRun

COST, LOG = "cost.json", "output.log"
Launch = Callable[[str, Sequence[str], Path, int], float | None]
"""Runs `train` or `evaluate` with settings, its output into a file, with so many threads; raises if that fails. Gives
the CPU seconds that it took, None where they were not counted."""


def launch_child(command: str, settings: Sequence[str], log: Path, threads: int) -> float:
    """Run a command of the project in a process of its own.

    Returns:
        CPU seconds, those of its readers included.

    Raises:
        TrainingError: if it fails; why stands in its output.
    """
    script = Path(__file__).parents[1] / f"{command}.py"
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, str(script), *settings], stdout=output, stderr=output, env=environment
        )
        try:
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            process.terminate()
            process.wait()
            raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        last = log.read_text("utf-8", "replace").strip().splitlines()[-1:] or ["it printed nothing"]
        raise TrainingError(f"scripts/{command}.py ended with status {process.returncode} ({last[0]}); see {log}")
    return used.ru_utime + used.ru_stime


def make_all(runs: Sequence[PlannedRun], jobs: int, launch: Launch) -> None:
    """Make the runs that are not finished, several at once where none waits for another.

    Args:
        runs: In an order in which they can be made.
        jobs: Runs at once.
        launch: Runs a command.

    Raises:
        TrainingError: of the first run that fails, once those beside it have ended.
    """
    waiting = [run for run in runs if not run.results.is_file()]
    echo(f"{len(runs)} runs, {len(runs) - len(waiting)} finished before", flush=True)
    total, threads = len(waiting), max(1, cores() // jobs)

    def start(run: PlannedRun) -> None:
        waiting.remove(run)
        echo(f"== {total - len(waiting)} of {total}: {run.folder}", flush=True)

    if len(waiting) == len(runs):  # the very first, alone: it may make data that the others read
        first = waiting[0]
        start(first)
        make(first, launch, threads)
    working: set[Future[None]] = set()
    with ThreadPoolExecutor(jobs) as pool:
        while waiting or working:
            for run in [run for run in waiting if _can_start(run)][: jobs - len(working)]:
                start(run)
                working.add(pool.submit(make, run, launch, threads))
            done, working = wait(working, return_when=FIRST_COMPLETED)
            try:
                for future in done:
                    future.result()
            except BaseException:
                waiting.clear()  # what works already goes on to its end
                raise


def _can_start(run: PlannedRun) -> bool:
    return run.parent is None or run.parent.results.is_file()


def make(run: PlannedRun, launch: Launch, threads: int) -> None:
    """Start a run, or go on with it where it has a checkpoint or predictions.

    Raises:
        TrainingError: if it ends without results.
    """
    settings = list(run.settings)
    resumed = run.command == "train" and any((run.folder / CHECKPOINTS).glob(ALL_NAMES))
    if resumed:
        settings.append(quoted("resume_from", run.folder))
    elif run.command == "train" and run.folder.is_dir():  # stopped before its first checkpoint
        shutil.rmtree(run.folder)
    log = run.folder.parent / f"{run.folder.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    seconds = launch(run.command, settings, log, threads)
    if not run.results.is_file():
        raise TrainingError(f"scripts/{run.command}.py ended without {run.results}; the same command goes on")
    cost = None if resumed else seconds  # what was done before the stop was not counted
    write_checked(run.folder / COST, {"cpu_seconds": cost, "command": [run.command, *run.settings]})
