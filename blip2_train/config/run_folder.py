"""A run's own folder: made for it alone, and named in every value of the configuration that lies in it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from blip2_train.system.launcher import launched_as_first_process

_VARIABLE = "BLIP2_TRAIN_RUN_DIR"
"""Variable that hands the run folder to the processes that the first one starts itself (Lightning's launcher)."""
_KEY = "paths.run_dir"


@contextmanager
def new_run_folder(config: DictConfig, arguments: Sequence[str]) -> Iterator[DictConfig]:
    """Make the folder that a configuration names by the time, with `-2`, `-3`, … behind it if another run has it.

    A folder that the command line names stays that; so does one of a process that is not the first, as only the first
    writes there. An empty folder is removed at the end, with those above it that were made for it.

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
        given = os.environ.get(_VARIABLE)
        yield config if given is None else _in_folder(config, Path(given))
    else:
        number, free = 1, folder
        made = [above for above in folder.parents if not above.exists()]
        while not _made(free):
            number += 1
            free = folder.with_name(f"{folder.name}-{number}")
        before, os.environ[_VARIABLE] = os.environ.get(_VARIABLE), str(free)
        try:
            yield _in_folder(config, free)
        finally:
            os.environ.pop(_VARIABLE)
            os.environ.update({} if before is None else {_VARIABLE: before})
            with suppress(OSError):  # it is not empty, as a rule
                for empty in (free, *made):
                    empty.rmdir()


def _made(folder: Path) -> bool:
    """Make a folder; False if it is there."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except FileExistsError:
        if not folder.exists():  # the error is about something above it
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
