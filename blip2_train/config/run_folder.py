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
_ATTEMPTS = 20
"""To make a folder while other processes remove theirs."""


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
        made = list[Path]()
        while not _made(free, made):
            number += 1
            free = folder.with_name(f"{folder.name}-{number}")
        before, os.environ[_VARIABLE] = os.environ.get(_VARIABLE), str(free)
        try:
            yield _in_folder(config, free)
        finally:
            os.environ.pop(_VARIABLE)
            os.environ.update({} if before is None else {_VARIABLE: before})
            with suppress(OSError):  # it is not empty, as a rule
                for empty in (free, *reversed(made)):
                    empty.rmdir()


def _made(folder: Path, above: list[Path]) -> bool:
    """Make a folder and add those above it that are made for it; False if it is there."""
    for attempt in range(_ATTEMPTS):
        try:
            for parent in [parent for parent in reversed(folder.parents) if not parent.exists()]:
                with suppress(FileExistsError):  # another process was quicker
                    parent.mkdir()
                    above.append(parent)
            folder.mkdir()
        except FileNotFoundError:  # another process has just removed what was empty
            if attempt == _ATTEMPTS - 1:
                raise
        except FileExistsError:
            if not folder.exists():  # the error is about something above it
                raise
            return False
        else:
            break
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
