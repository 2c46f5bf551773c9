"""`python scripts/train.py --multirun experiment=<recipe> key=a,b …`: one run for each combination of values."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blip2_train.cli.terminal import split_arguments
from blip2_train.cli.train.sweep.launching import LOGS, read_launcher, run_here
from blip2_train.cli.train.sweep.plan import Processes, Sweep, plan_sweep
from blip2_train.errors import ConfigError, TrainingError
from blip2_train.evaluation.run_metrics import read_results, smaller_is_better
from blip2_train.system.atomic_write import read_checked, write_checked
from blip2_train.system.screen import echo, make_console
from blip2_train.system.tables import NumbersTable

_SCORES = ("val/recall_mean", "val/cider", "val/loss_lm", "train/loss")
"""By which runs are compared that name no `monitor`: the first that all have."""


def sweep_command(arguments: Sequence[str]) -> None:
    """Make every run of a sweep, and compare their results.

    Args:
        arguments: Of the command line, without `--multirun`.

    Raises:
        ConfigError: if any run's settings cannot be used, before anything is started or written.
        TrainingError: naming the runs that failed, after all have ended.
    """
    settings, show, recipes = split_arguments(arguments)
    if show:
        raise ConfigError("--cfg shows one configuration: give each key one value, and leave --multirun out")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise ConfigError(
            "a sweep is not started by torchrun: its runs start their processes themselves (trainer=ddp "
            "trainer.devices=8), or hydra/launcher=submitit_slurm does"
        )
    own = [setting for setting in settings if setting.lstrip("+~").replace("/", ".").startswith("hydra.")]
    launcher = read_launcher(own)
    plan = _planned_alone([s for s in settings if s not in own], recipes, launcher.processes if launcher else None)
    echo(f"runs: {len(plan.jobs)}, compared in {_write(plan, [])}")
    for number, job in enumerate(plan.jobs):
        echo(f"run {number}: {job.chosen or 'as given'} → {job.folder}", flush=True)
    if launcher:
        echo(f"what each prints: {plan.folder / LOGS}", flush=True)
    failures = launcher.run(plan) if launcher else run_here(plan.jobs)
    path = _write(plan, failures)
    _show(read_checked(path, "the results of each run stand in its own folder"))
    echo(f"comparison: {path}", flush=True)
    failed = [f"run {n} ({plan.jobs[n].chosen or 'as given'}): {why}" for n, why in enumerate(failures) if why]
    if failed:
        raise TrainingError(f"{len(failed)} of {len(failures)} runs failed: {'; '.join(failed)}")


def _planned_alone(settings: Sequence[str], recipes: Path | None, processes: Processes | None) -> Sweep:
    """The sweep in a folder made for it alone, whose name the folders of its runs share."""
    plan = plan_sweep(settings, recipes, processes)
    started, number = plan.folder.name, 1
    plan.folder.parent.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            plan.folder.mkdir()
            return plan
        except FileExistsError:
            number += 1
            plan = plan_sweep(settings, recipes, processes, f"{started}-{number}")


def _write(plan: Sweep, failures: Sequence[str]) -> Path:
    """Write which run had which settings, and what came of it so far."""
    results = [read_results(job.folder) for job in plan.jobs]
    finished = [result for result in results if result]
    named = [job.monitor for job in plan.jobs if job.monitor]
    score = next((name for name in [*named, *_SCORES] if finished and all(name in result for result in finished)), None)
    runs = [
        {
            "run": number,
            "settings": job.chosen,
            "folder": str(job.folder),
            "failure": failures[number] if failures else None,
            "score": result.get(score) if score else None,
            "results": result,
        }
        for number, (job, result) in enumerate(zip(plan.jobs, results, strict=True))
    ]
    content = {"compared_by": score, "runs": runs}
    return write_checked(plan.folder / "sweep.json", content)


def _show(record: dict[str, Any]) -> None:
    """The runs as a table, the best first."""
    name = record["compared_by"]
    sign = 1 if smaller_is_better(name or "") else -1
    table = NumbersTable(("run", "settings", name or "score", ""), title="sweep", texts=[1, 3])
    for run in sorted(record["runs"], key=lambda run: (run["score"] is None, sign * (run["score"] or 0))):
        score = "" if run["score"] is None else f"{run['score']:.4g}"
        table.add_row(str(run["run"]), run["settings"], score, "failed" if run["failure"] else "")
    make_console().print(table)
