"""A run's own folder: made for it alone, locked while it runs, and never another run's results in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from blip2_train.checkpoints.export import MANIFEST
from blip2_train.checkpoints.training_checkpoints import CHECKPOINTS, EVERY
from blip2_train.errors import ConfigError
from blip2_train.evaluation.run_metrics import RESULTS
from blip2_train.system.folder_lock import lock_folder
from blip2_train.system.launcher import launched_as_first_process
from blip2_train.training.earlier_runs import EXPORT, results_in

_TOLD = "BLIP2_TRAIN_RUN_DIR"
"""Variable by which a first process tells those that it starts itself (Lightning's launcher) what its folder is."""
_KEY = "paths.run_dir"
_CHOICES = f"go on with that run by resume_from={{}}, give another {_KEY}=, or replace it by overwrite=true"


@contextmanager
def made_alone(config: DictConfig, arguments: Sequence[str]) -> Iterator[DictConfig]:
    """Make the folder that a configuration names by the time, with `-2`, `-3`, … behind it if another run has it.

    A folder that the command line names stays that; so does one of a process that is not the first, as only the first
    writes there. An empty folder is removed at the end.

    Args:
        config: From `compose`.
        arguments: Of the command line.

    Yields:
        The configuration, with the folder in every value that lies in it.
    """
    folder = Path(config.paths.run_dir).expanduser()
    if any(argument.lstrip("+").startswith(f"{_KEY}=") for argument in arguments):
        yield config
    elif not launched_as_first_process():
        told = os.environ.get(_TOLD)
        yield config if told is None else _in_folder(config, Path(told))
    else:
        number, place = 1, folder
        while not _made(place):
            number += 1
            place = folder.with_name(f"{folder.name}-{number}")
        before, os.environ[_TOLD] = os.environ.get(_TOLD), str(place)
        try:
            yield _in_folder(config, place)
        finally:
            os.environ.pop(_TOLD)
            os.environ.update({} if before is None else {_TOLD: before})
            with suppress(OSError):  # it is not empty, as a rule
                place.rmdir()


@contextmanager
def held_for(config: DictConfig, goes_on: bool) -> Iterator[None]:
    """Keep other runs out of the run folder; every process may call it, the first one holds the lock.

    Args:
        config: From `compose`.
        goes_on: Whether the run goes on from a checkpoint there.

    Raises:
        ConfigError: if another run writes there just now, or has left results there and they are not to be replaced.
    """
    folder = Path(config.paths.run_dir).expanduser()
    if not launched_as_first_process():
        yield
        return
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    choices = f"wait for that run or end it, or give another {_KEY}="
    try:
        with lock_folder(folder, f"run folder {folder}", choices):
            found = [] if goes_on or config.overwrite else results_in(folder)
            if found:
                what = f"run folder {folder} holds the {', '.join(found)} of another run"
                raise ConfigError(f"{what}: {_CHOICES.format(folder)}")
            yield
    finally:
        if new:
            with suppress(OSError):
                folder.rmdir()


def remove_results(folder: Path) -> None:
    """Remove what another run has left of results, so that nothing of it is taken for the new run's.

    Only files that runs write are removed, nothing else that lies there.
    """
    (folder / RESULTS).unlink(missing_ok=True)  # first: without it nothing counts as finished
    for checkpoint in (folder / CHECKPOINTS).glob(EVERY):
        checkpoint.unlink()
    if (folder / EXPORT / MANIFEST).is_file():
        shutil.rmtree(folder / EXPORT)


def _made(folder: Path) -> bool:
    """Make a folder; False if it is there."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except FileExistsError:
        if not folder.exists():  # what stands in the way is something above it
            raise
        return False
    return True


def _in_folder(config: DictConfig, folder: Path) -> DictConfig:
    """A configuration whose run folder is `folder`, and so is every path in it."""
    named = str(config.paths.run_dir)
    if named == str(folder):
        return config

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: moved(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [moved(inner) for inner in value]
        inside = isinstance(value, str) and (value == named or value.startswith(f"{named}/"))
        return f"{folder}{value[len(named) :]}" if inside else value

    changed: DictConfig = OmegaConf.create(moved(OmegaConf.to_container(config)))
    OmegaConf.set_readonly(changed, True)
    return changed
