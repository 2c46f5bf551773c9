"""What each process of a CapFilt does: it loads captioner and scorer once, then takes batch after batch."""

from __future__ import annotations

import multiprocessing
import re
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from blip2_train.checkpoints.files import fingerprint
from blip2_train.checkpoints.hub import fetch, looks_like_hub_id
from blip2_train.cli.pretrained import find_device, load_pretrained
from blip2_train.data.order import stable_seed
from blip2_train.data.pictures import decode_picture
from blip2_train.data.prepare.examination import usable_texts
from blip2_train.data.prepare.pairs import PairSource
from blip2_train.data.rejections import UnusableSample
from blip2_train.errors import CheckpointMismatch, ShardError
from blip2_train.evaluation.capfilt import CapFilt, CapFiltOptions
from blip2_train.evaluation.caption_sampling import caption_start_of
from blip2_train.evaluation.inference import Blip2
from blip2_train.evaluation.pair_scoring import ClipScorer, MatchScorer, PairScorer

CLIP = "clip:"


@dataclass(frozen=True, kw_only=True)
class CapFiltModels:
    """Where captioner and scorer come from, and where they run."""

    captioner: str
    """Anything that `load_pretrained` takes."""
    scorer: str
    """The same, or `clip:<folder or hub id>`."""
    options: CapFiltOptions
    device: str | None = None
    """None = a GPU if there is one; several processes divide the GPUs among themselves."""
    dtype: str | None = None
    """Of the language model and of frozen towers; None = as configured."""


@dataclass(frozen=True, kw_only=True)
class CapFiltWork:
    """Writes and ranks the captions of a batch of samples."""

    source: PairSource
    models: CapFiltModels

    def __call__(self, numbers: NDArray[np.int64]) -> list[dict[str, Any]]:
        """The best captions of each sample, with `caption_scores` and `caption_origins`.

        Raises:
            ShardError: if a sample can no longer be used.
        """
        pictures: list[Image.Image] = []
        originals: list[tuple[str, ...]] = []
        seeds: list[int] = []
        for number in numbers.tolist():
            place = self.source.locate(number)
            try:
                record = self.source.read(number)
                pictures.append(decode_picture(record.picture))
                originals.append(usable_texts(record))
            except UnusableSample as problem:
                raise ShardError(
                    f"{place.file}: {place.key} changed while captions were written for it ({problem.reason}); leave "
                    "the source alone, and start again in an empty folder"
                ) from None
            seeds.append(stable_seed("capfilt", self.models.options.seed, place.shard, place.key))
        kept = _load(self.models).capfilt(pictures, originals, seeds)
        return [
            {"captions": one.captions, "caption_scores": one.scores, "caption_origins": one.origins} for one in kept
        ]


@dataclass(frozen=True)
class _Loaded:
    captioner: Blip2
    scorer: PairScorer
    capfilt: CapFilt


def describe(models: CapFiltModels, _: object = None) -> dict[str, Any]:
    """Plain values on which captions and scores depend; loads both models, so that what does not fit is said at once.

    Raises:
        CheckpointMismatch: if a model is not known or damaged.
        ConfigError: if it cannot do what it is to do.
    """
    loaded = _load(models)
    caption_start_of(loaded.captioner, models.options.prompt)
    return {
        "captioner": models.captioner,
        "captioner_hash": fingerprint(dict(loaded.captioner.network.state_dict()))[:16],
        "scorer": models.scorer,
        "scorer_hash": fingerprint(loaded.scorer.weights())[:16],
        "dtype": models.dtype,
        **asdict(models.options),
    }


@lru_cache(maxsize=1)
def _load(models: CapFiltModels) -> _Loaded:
    device = _own_device(models.device)
    if device.type == "cpu":
        torch.set_num_threads(1)  # in each process, however many there are: so their number does not touch rounding
    captioner, _ = load_pretrained(models.captioner, device=str(device), dtype=models.dtype)
    caption_start_of(captioner, models.options.prompt)
    scorer = _scorer(models, device)
    return _Loaded(captioner, scorer, CapFilt(captioner, scorer, models.options))


def _scorer(models: CapFiltModels, device: torch.device) -> PairScorer:
    if not models.scorer.startswith(CLIP):
        return MatchScorer(
            load_pretrained(models.scorer, device=str(device), dtype=models.dtype)[0], models.options.score
        )
    name = models.scorer.removeprefix(CLIP)
    folder = Path(name).expanduser()
    if not folder.exists() and looks_like_hub_id(name):
        folder = fetch(name)
    if not folder.is_dir():
        raise CheckpointMismatch(
            f"scorer {models.scorer}: there is no folder {name}; give clip:<folder or hub id of transformers' CLIP>"
        )
    return ClipScorer(folder, device)


def _own_device(name: str | None) -> torch.device:
    """The device of this process: of several GPUs one by its number among the processes of a pool."""
    device = find_device(name)
    if device.type != "cuda" or device.index is not None:
        return device
    number = re.search(r"\d+$", multiprocessing.current_process().name)
    return torch.device("cuda", int(number.group()) % torch.cuda.device_count() if number else 0)
