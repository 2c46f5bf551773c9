"""Hydra composes each choice of options once: hundreds of tests, and the runs they start, need the same few.

It acts in every test process (`tests/conftest.py`), in the process that forks commands (`warm_server`) and in the fuzz
test, but in none of the tests of composing itself (`COMPOSING`): these use the real composition, as every command does.
What it keeps is what Hydra returns for a choice of options. Everything that this project does with that (values of the
command line, strict keys, types, what follows from weights) runs anew each time, also where it acts.
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from omegaconf import DictConfig, OmegaConf

from blip2_train.config import compose

TESTS = Path(__file__).parents[1]
COMPOSING = (
    "unit/config",
    "unit/configs",
    "cli/test_wrong_overrides.py",
    "cli/test_all_problems.py",
)
"""Tests of composing: folders and files below `tests/`."""
_acting = True


def compose_each_choice_once() -> None:
    """From now on, in this process. Of choices that are new most files are not: each text is parsed once."""
    done: dict[tuple[str, ...], DictConfig] = {}
    parsed: dict[str, Any] = {}
    compose_by_hydra, load = compose._compose, OmegaConf.load

    def load_once(file: Any) -> Any:
        if not _acting or not isinstance(file, io.TextIOBase):
            return load(file)
        text = file.read()
        if text not in parsed:
            file.seek(0)
            parsed[text] = load(file)
        return copy.deepcopy(parsed[text])

    def compose_once(root: str, choices: Sequence[str], folders: Sequence[Path], extra: Path | None) -> DictConfig:
        if not _acting or extra is not None:  # a test's own folder of options, which it may change
            return compose_by_hydra(root, choices, folders, extra)
        key = (root, *choices)
        if key not in done:
            done[key] = compose_by_hydra(root, choices, folders, extra)
        return copy.deepcopy(done[key])

    mock.patch.object(compose, "_compose", compose_once).start()
    mock.patch.object(OmegaConf, "load", load_once).start()


def is_test_of_composing(path: Path) -> bool:
    """Whether a file of tests has to see the real composition."""
    return any(path.is_relative_to(TESTS / part) for part in COMPOSING)


@contextlib.contextmanager
def real_composition() -> Iterator[None]:
    """Within it, everything is composed as a command composes it."""
    global _acting
    before, _acting = _acting, False
    try:
        yield
    finally:
        _acting = before
