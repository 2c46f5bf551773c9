"""Starts the runs of a sweep: one after the other in processes of their own, or by Hydra's submitit launcher."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from blip2_train.cli.train.sweep.plan import Job, Processes, Sweep
from blip2_train.cli.train.sweep.task import train_as_task
from blip2_train.config.hydra_private import instantiate_launcher
from blip2_train.config.overrides import no_such_option, parse_setting, quoted
from blip2_train.config.strict_keys import unknown_key
from blip2_train.errors import ConfigError
from blip2_train.system.extras import import_extra
from blip2_train.system.screen import echo

HERE = "basic"
"""Hydra's name for a launcher that submits nothing."""
LOGS = "logs"
"""Folder, in that of a sweep, of what submitted runs print."""
_LAUNCHERS = (HERE, "submitit_local", "submitit_slurm")
_PREFIX = "hydra.launcher."
_REQUEUES = 100
"""How often a run that its time ended is queued again by SLURM by default."""


def read_launcher(settings: Sequence[str]) -> Submitit | None:
    """The launcher that Hydra's own settings name; None if the runs are made here.

    Args:
        settings: `hydra/launcher=submitit_slurm`, `hydra.launcher.nodes=2`.

    Raises:
        ConfigError: if they cannot be used, or the launcher is not there.
    """
    name, options = HERE, []
    for setting in settings:
        override = parse_setting(setting)
        key = override.key_or_group
        if override.is_sweep_override() or override.is_delete():
            raise ConfigError(f"{setting!r}: all runs of a sweep are launched alike")
        if key == "hydra/launcher":
            name = str(override.value())
            if name not in _LAUNCHERS:
                raise no_such_option(key, name, _LAUNCHERS)
        elif key.startswith(_PREFIX):
            options.append(f"++{setting.lstrip('+')}")
        else:
            raise ConfigError(
                f"{key!r} cannot be set: of Hydra's own settings a sweep has hydra/launcher and hydra.launcher.…; its "
                "folders lie in paths.output_dir"
            )
    if name != HERE:
        return Submitit(name, options)
    if options:
        raise ConfigError(
            f"{options[0].lstrip('+')} needs a launcher: add hydra/launcher=submitit_slurm or submitit_local"
        )
    return None


def run_here(jobs: Sequence[Job]) -> list[str]:
    """Train one run after the other, each in processes of its own.

    Returns:
        For each run why it failed; "" if it did not.
    """
    failures = []
    for number, job in enumerate(jobs):
        echo(f"== run {number}: {job.chosen}", flush=True)
        status = subprocess.call([sys.executable, "-P", "-m", "blip2_train.cli.train.command", *job.arguments])
        failures.append(f"exit status {status}, see above" if status else "")
    return failures


class Submitit:
    """Hydra's submitit launcher (`hydra-submitit-launcher`).

    Each run is a job of its own, launched and awaited by a thread, so that one whose processes die does not take the
    others' results with it.

    Args:
        name: `submitit_local` or `submitit_slurm`.
        options: `hydra.launcher.…` settings.
    """

    def __init__(self, name: str, options: Sequence[str]) -> None:
        import_extra("hydra_plugins.hydra_submitit_launcher", f"hydra/launcher={name}")
        if name == "submitit_slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
            raise ConfigError(
                "hydra/launcher=submitit_slurm: there is no sbatch or no srun on this machine; start the sweep on the "
                "cluster's login node, or use hydra/launcher=submitit_local"
            )
        requeues = [f"{_PREFIX}max_num_timeout={_REQUEUES}"] if name == "submitit_slurm" else []
        self._settings = [f"hydra/launcher={name}", "hydra/job_logging=none", "hydra/hydra_logging=none", *requeues]
        known = {f"{_PREFIX}{key}" for key in self._composed().launcher if key != "_target_"}
        for option in options:
            key = parse_setting(option).key_or_group
            if ".".join(key.split(".")[:3]) not in known:
                raise unknown_key(key, None, known, f" of hydra/launcher={name}")
        self._settings += options
        launcher = self._composed().launcher
        self.processes = Processes(launcher.nodes, launcher.tasks_per_node)
        """Of each run."""
        if name == "submitit_local" and launcher.nodes != 1:
            raise ConfigError(f"hydra.launcher.nodes={launcher.nodes}: submitit_local has this machine only")

    def run(self, sweep: Sweep) -> list[str]:
        """Submit all runs and wait for them.

        Returns:
            For each run why it failed; "" if it did not.
        """
        os.environ["SUBMITIT_PREEMPT_SIGNAL"] = "USR1"  # the signal after which a run is saved and goes on
        folders = [
            quoted("hydra.sweep.dir", sweep.folder),
            "hydra.sweep.subdir=.",
            "hydra.output_subdir=null",
            quoted(f"{_PREFIX}submitit_folder", sweep.folder / LOGS / "%j"),
        ]
        failures = ["it was not launched"] * len(sweep.jobs)
        with _hydra():
            config = self._load(folders)
            runs = [(job.arguments, job.folder) for job in sweep.jobs]
            launcher = instantiate_launcher(config, partial(train_as_task, runs))
            room = threading.Semaphore(config.hydra.launcher.get("array_parallelism") or len(sweep.jobs))

            def launch(number: int) -> None:
                with room:
                    try:
                        (returned,) = launcher.launch([[f"+job={number}"]], number)
                        failures[number] = _reason(*returned.return_value)
                    except Exception as error:
                        failures[number] = f"{_cause(error)}; see {sweep.folder / LOGS}"

            waiting = [threading.Thread(target=launch, args=(number,), daemon=True) for number in range(len(failures))]
            for thread in waiting:
                thread.start()
            for thread in waiting:
                thread.join()
        return failures

    def _composed(self) -> Any:
        """Hydra's settings."""
        with _hydra():
            return self._load([]).hydra

    def _load(self, more: Sequence[str]) -> DictConfig:
        try:
            config: DictConfig = hydra.compose(overrides=[*self._settings, *more], return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
            key = getattr(cause, "full_key", None)
            raise ConfigError(f"{key + ': ' if key else ''}{str(cause).splitlines()[0]}") from error
        return config


def _hydra() -> Any:
    """Hydra with its own configuration only."""
    GlobalHydra.instance().clear()
    return hydra.initialize(config_path=None, job_name="blip2_train", version_base="1.3")


def _cause(error: Exception) -> str:
    """What is wrong by submitit's message, which may show another process's traceback between two lines of dashes."""
    message, *shown = str(error).split("\n-----")
    lines = (shown[0] if shown else message).strip("- \n").splitlines()
    return (lines[-1] if shown else " ".join(lines[:2])) if lines else type(error).__name__


def _reason(status: int, log: str) -> str:
    """Why a run failed, from its exit status and the last error in its log; "" if it did not."""
    if status == 0:
        return ""
    lines = Path(log).read_text(encoding="utf-8", errors="replace").splitlines() if Path(log).is_file() else []
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return f"exit status {status}, {errors[-1] + '; ' if errors else ''}see {log}"
