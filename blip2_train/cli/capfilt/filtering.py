"""Runs CapFilt over a source: new captions for whatever can be used, in shards with an index."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from blip2_train.cli.capfilt.work import CapFiltModels, CapFiltWork, describe
from blip2_train.cli.key_values import read_settings
from blip2_train.cli.run_folder import find_export
from blip2_train.cli.shown_progress import ShownProgress
from blip2_train.data.prepare.engine import LocalEngine
from blip2_train.data.prepare.new_captions import NewCaptions
from blip2_train.data.prepare.opening import open_pairs
from blip2_train.data.prepare.options import ShardOptions
from blip2_train.data.prepare.preparation import INDEX, REJECTED, Preparation
from blip2_train.errors import ConfigError
from blip2_train.evaluation.capfilt import CapFiltOptions


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is given better captions, by whom, and where it goes."""

    source: str | Sequence[str]
    output: str
    captioner: str
    scorer: str
    images: str | None = None
    split: str | None = None
    batch_size: int = 16
    device: str | None = None
    dtype: str | None = None
    workers: int | None = None
    """Processes; None = one for each GPU, else one for each core."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")


def filter_captions(arguments: Sequence[str]) -> None:
    """Write and rank captions as the arguments say, and print what was made.

    Raises:
        ConfigError: if a setting cannot be used, or a model cannot do what it is to do.
        CheckpointMismatch: if a model is not known or damaged.
        ShardError: if the source cannot be read, or the output not be written.
    """
    request, options, shard_options = read_settings(arguments, (Request, CapFiltOptions, ShardOptions), "capfilt.py")
    models = CapFiltModels(
        captioner=find_model("captioner", request.captioner),
        scorer=find_model("scorer", request.scorer),
        options=options,
        device=request.device,
        dtype=request.dtype,
    )
    source = open_pairs(request.source, request.images, request.split)
    engine = LocalEngine(request.workers or _models_at_once(request.device))
    (settings,) = engine(partial(describe, models), [None])
    new_captions = NewCaptions(
        work=CapFiltWork(source=source, models=models),
        settings=settings,
        batch_size=request.batch_size,
        engine=engine,
    )
    folder = Path(request.output).expanduser()
    preparation = Preparation(source=source, folder=folder, options=shard_options, new_captions=new_captions)
    with ShownProgress() as shown:
        index = preparation.run(LocalEngine(request.workers or _cores()), shown)
    listed = ", ".join(f"{count:,} {reason}" for reason, count in index["rejected"].items()) or "none"
    rate = f", {shown.rates['caption']:,.1f} pictures a second" if "caption" in shown.rates else ""
    print(f"captions:  the best {options.keep} of {options.captions} and a picture's own{rate}")
    print(f"shards:    {len(index['shards']):,} in {folder}, {index['samples']:,} samples, {index['bytes']:,} bytes")
    print(f"rejected:  {listed}; see {folder / REJECTED}")
    print(f"index:     {folder / INDEX}")


def find_model(setting: str, given: str) -> str:
    """What a setting names; of `last:<recipe>` the newest export of that recipe in the folder `outputs`.

    Raises:
        ConfigError: if there is none.
    """
    try:
        return find_export(given, "outputs")
    except ConfigError as error:
        raise ConfigError(str(error).replace("init_from=", f"{setting}=")) from None


def _models_at_once(device: str | None) -> int:
    """Processes that hold models: one for each GPU, or for each core."""
    if device not in (None, "auto", "cuda"):
        return _cores() if device == "cpu" else 1
    return torch.cuda.device_count() or (1 if torch.backends.mps.is_available() else _cores())


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
