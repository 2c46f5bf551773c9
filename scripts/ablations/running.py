"""Makes the runs of an ablation with the ordinary commands; what is finished is kept, what was stopped goes on."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ablations.plan import PlannedRun
from blip2_train.checkpoints.training_checkpoints import ALL_NAMES, CHECKPOINTS
from blip2_train.errors import ConfigError, TrainingError
from blip2_train.system.error_reasons import reason_of
from blip2_train.system.folder_lock import LOCK
from blip2_train.system.records import parse_yaml

CONFIG = "config.yaml"
Launch = Callable[[str, Sequence[str]], None]
"""Runs `train` or `evaluate` with settings, and raises if that fails."""


def launch_child(command: str, settings: Sequence[str]) -> None:
    """Run a command of the project in a process of its own, whose output goes to this terminal.

    Raises:
        TrainingError: if it fails; why stands in what it has printed.
    """
    script = Path(__file__).parents[1] / f"{command}.py"
    status = subprocess.call([sys.executable, str(script), *settings])
    if status:
        raise TrainingError(
            f"scripts/{command}.py {' '.join(settings)} ended with status {status}, see above; the same command goes on"
        )


def is_finished(run: PlannedRun) -> bool:
    """Whether its results are there, made with the same settings.

    Raises:
        ConfigError: if its folder holds another run: nothing is replaced.
    """
    known = run.folder / CONFIG
    remedy = "remove that folder, or choose another paths.output_dir"
    if not known.is_file():
        if run.folder.is_dir() and any(path.name != LOCK for path in run.folder.iterdir()):
            raise ConfigError(f"{run.folder} holds something that is no run of an ablation; {remedy}")
        return False
    before, now = (dict(_leaves(c)) for c in (_written(known, remedy), OmegaConf.to_container(run.config)))
    for key in [*now, *before]:
        if key != "resume_from" and before.get(key) != now.get(key):
            raise ConfigError(f"{run.folder} was made with {key} {before.get(key)}, not {now.get(key)}; {remedy}")
    if run.parent is not None and not _came_before(run.parent.results, known):
        raise ConfigError(f"{run.folder} is older than {run.parent.folder}, which it starts from; {remedy}")
    return run.results.is_file()


def _written(file: Path, remedy: str) -> dict[str, Any]:
    """The configuration that a run folder holds, as plain values."""
    try:
        return parse_yaml(file.read_text(encoding="utf-8"), file, remedy, ConfigError)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read ({reason_of(error)}); {remedy}") from None


def make(run: PlannedRun, launch: Launch) -> None:
    """Start a run that is not finished, or go on with it where it has a checkpoint or predictions.

    Raises:
        TrainingError: if it ends without results.
    """
    settings = list(run.settings)
    if run.command == "evaluate":  # goes on by itself; it keeps no configuration
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / CONFIG).write_text(OmegaConf.to_yaml(run.config), encoding="utf-8")
    elif any((run.folder / CHECKPOINTS).glob(ALL_NAMES)):
        escaped = str(run.folder).replace("'", "\\'")
        settings.append(f"resume_from='{escaped}'")
    elif run.folder.is_dir():  # stopped before its first checkpoint
        shutil.rmtree(run.folder)
    launch(run.command, settings)
    if not run.results.is_file():
        raise TrainingError(f"scripts/{run.command}.py ended without {run.results}; the same command goes on")


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Full key and value of everything in a configuration; lists are values."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def _came_before(first: Path, second: Path) -> bool:
    """Whether the first file is there, and not newer than the second."""
    return first.is_file() and first.stat().st_mtime_ns <= second.stat().st_mtime_ns
