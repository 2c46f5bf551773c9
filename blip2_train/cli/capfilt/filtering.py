"""Runs CapFilt over a source: new captions for whatever can be used, in shards with an index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from blip2_train.cli.capfilt.work import CapFiltModels, CapFiltWork, describe
from blip2_train.cli.key_values import read_settings
from blip2_train.cli.run_folder import find_export
from blip2_train.cli.shown_progress import ShownProgress
from blip2_train.data.prepare.engine import Engine, LocalEngine
from blip2_train.data.prepare.engines import EngineName, cores, open_engine
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
    """Processes; None = one for each GPU, else one for each core; of a cluster as many as it has room for."""
    engine: EngineName = "local"
    ray_address: str | None = None
    gpus_per_worker: float = 0
    """Of workers of Ray."""

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
    folder = Path(request.output).expanduser()
    with _engines(request) as (engine, writing), ShownProgress() as shown:
        (settings,) = writing(partial(describe, models), [None])
        new_captions = NewCaptions(
            work=CapFiltWork(source=source, models=models),
            settings=settings,
            batch_size=request.batch_size,
            engine=writing,
        )
        index = Preparation(source=source, folder=folder, options=shard_options, new_captions=new_captions).run(
            engine, shown
        )
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


@contextmanager
def _engines(request: Request) -> Iterator[tuple[Engine, Engine]]:
    """What examines and packs, and what holds the models; of Ray one for both."""
    options = {"ray_address": request.ray_address, "gpus_per_worker": request.gpus_per_worker}
    with open_engine(request.engine, request.workers, **options) as engine:  # type: ignore[arg-type]
        local = request.engine == "local"
        yield engine, LocalEngine(request.workers or _models_at_once(request.device)) if local else engine


def _models_at_once(device: str | None) -> int:
    """Processes that hold models: one for each GPU, or for each core."""
    if device not in (None, "auto", "cuda"):
        return cores() if device == "cpu" else 1
    return torch.cuda.device_count() or (1 if torch.backends.mps.is_available() else cores())
