"""Runs CapFilt over a source: new captions for whatever can be used, in shards with an index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from blip2_train.cli.capfilt.models import KINDS, CapFiltModels, describe
from blip2_train.cli.capfilt.work import CapFiltWork
from blip2_train.cli.model_workers import ModelWorkers
from blip2_train.cli.phase_progress import PhaseProgress
from blip2_train.cli.terminal import kept_when_stopped
from blip2_train.config.key_values import read_settings
from blip2_train.data.prepare.destination import Destination, open_destination
from blip2_train.data.prepare.engine import paths_here
from blip2_train.data.prepare.new_captions import NewCaptions
from blip2_train.data.prepare.opening import open_pairs
from blip2_train.data.prepare.options import ShardOptions
from blip2_train.data.prepare.preparation import REJECTED, UNFINISHED, Preparation
from blip2_train.data.shards.shard_lists import INDEX
from blip2_train.data.sources.source import PairSource
from blip2_train.errors import ConfigError
from blip2_train.evaluation.capfilt import CapFiltOptions
from blip2_train.system.screen import echo
from blip2_train.training.earlier_runs import find_export


@dataclass(frozen=True, kw_only=True)
class Request(ModelWorkers):
    """What is given better captions, by whom, and where it goes."""

    source: str | Sequence[str]
    output: str
    captioner: str
    scorer: str
    images: str | None = None
    split: str | None = None
    picture_column: str | None = None
    caption_column: str | None = None
    id_column: str | None = None
    dtype: str | None = None


def filter_captions(arguments: Sequence[str]) -> None:
    """Write and rank captions as the arguments say, and print what was made.

    Raises:
        ConfigError: if a setting cannot be used, or a model cannot do what it is to do.
        CheckpointMismatch: if a model is not known or damaged.
        ShardError: if the source cannot be read, or the output not be written.
    """
    request, options, shard_options = read_settings(
        arguments, (Request, CapFiltOptions, ShardOptions), "python scripts/capfilt.py"
    )
    models = CapFiltModels(
        captioner=find_model("captioner", request.captioner),
        scorer=find_model("scorer", request.scorer),
        options=options,
        device=request.worker_device,
        dtype=request.dtype,
    )
    columns = request.picture_column, request.caption_column, request.id_column
    source = open_pairs(request.source, request.images, request.split, *columns)
    output = open_destination(request.output)
    kept_when_stopped(f"what is done so far is kept for {output}, and the same command goes on from there")
    echo(f"models:    {models.captioner} writes, {models.scorer} ranks", flush=True)  # opening them takes its time
    try:
        index, rate = _run(request, models, source, output, shard_options)
    except torch.OutOfMemoryError:
        raise ConfigError(
            f"a GPU has too little memory for both models and {request.batch_size} images with {options.captions} "
            "captions each; repeat the command with a smaller batch_size, or dtype=bfloat16 and another output"
        ) from None
    listed = ", ".join(f"{count:,} {reason}" for reason, count in index["rejected"].items()) or "none"
    speed = "" if rate is None else f", {rate:,.1f} images a second"
    echo(f"captions:  the best {options.keep} of {options.captions} and an image's own{speed}")
    echo(f"shards:    {len(index['shards']):,} in {output}, {index['samples']:,} samples, {index['bytes']:,} bytes")
    echo(f"rejected:  {listed}; see {output}/{REJECTED}")
    echo(f"index:     {output}/{INDEX}")


def find_model(setting: str, given: str) -> str:
    """What a setting names; of `last:<recipe>` the newest export of that recipe in the folder `outputs`.

    Raises:
        ConfigError: if there is none.
    """
    return given if given.startswith(KINDS) else find_export(given, "outputs", setting)


def _run(
    request: Request, models: CapFiltModels, source: PairSource, output: Destination, options: ShardOptions
) -> tuple[dict[str, Any], float | None]:
    """The index of what was made, and how many images were given captions in a second, if any were."""
    shared = [*paths_here(request.source, request.images), *models.files(), str(output.folder / UNFINISHED)]
    with request.engines(shared) as (engine, writing), PhaseProgress() as shown:
        (settings,) = writing(partial(describe, models), [None])
        new_captions = NewCaptions(
            work=CapFiltWork(source=source, models=models),
            settings=settings,
            batch_size=request.batch_size,
            engine=writing,
        )
        preparation = Preparation(
            source=source,
            folder=output.folder,
            options=options,
            new_captions=new_captions,
            destination=output,
        )
        return preparation.run(engine, shown), shown.rates.get("caption")
