"""Hydra puts together each choice of options once: hundreds of tests, and the runs they start, ask for the same few."""

from __future__ import annotations

import copy
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from omegaconf import DictConfig, OmegaConf

from blip2_train.config import compose


def compose_each_choice_once() -> None:
    """From now on, in this process. Of choices that are new most files are not: each text is parsed once."""
    done: dict[tuple[str, ...], DictConfig] = {}
    parsed: dict[str, Any] = {}
    ask_hydra, load = compose._compose, OmegaConf.load

    def load_once(file: Any) -> Any:
        if not isinstance(file, io.TextIOBase):
            return load(file)
        text = file.read()
        if text not in parsed:
            file.seek(0)
            parsed[text] = load(file)
        return copy.deepcopy(parsed[text])

    def compose_once(root: str, choices: Sequence[str], folders: Sequence[Path], extra: Path | None) -> DictConfig:
        if extra is not None:  # a test's own folder of options, which it may change
            return ask_hydra(root, choices, folders, extra)
        key = (root, *choices)
        if key not in done:
            done[key] = ask_hydra(root, choices, folders, extra)
        return copy.deepcopy(done[key])

    mock.patch.object(compose, "_compose", compose_once).start()
    mock.patch.object(OmegaConf, "load", load_once).start()
