"""Opens captioner and scorer, once in each process."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers

from blip2_train.checkpoints.files import fingerprint
from blip2_train.checkpoints.hub import fetch, looks_like_hub_id
from blip2_train.checkpoints.source_kinds import UNDERSTOOD
from blip2_train.cli.model_workers import own_device
from blip2_train.errors import CheckpointMismatch
from blip2_train.evaluation.blip_captioner import BlipCaptioner
from blip2_train.evaluation.capfilt import CapFilt, CapFiltOptions
from blip2_train.evaluation.caption_sampling import Blip2Captioner, Captioner
from blip2_train.evaluation.inference import Blip2
from blip2_train.evaluation.open_clip_scorer import OpenClipScorer, require_open_clip
from blip2_train.evaluation.pair_scoring import ClipScorer, MatchScorer, PairScorer
from blip2_train.pretrained import load_pretrained

KINDS = BLIP, CLIP, OPEN_CLIP = "blip:", "clip:", "open_clip:"
"""What names of models of other packages begin with."""


@dataclass(frozen=True, kw_only=True)
class CapFiltModels:
    """Where captioner and scorer come from, and where they run."""

    captioner: str
    """Anything that `load_pretrained` takes, or `blip:<folder or hub id>`."""
    scorer: str
    """Anything that `load_pretrained` takes, `clip:<folder or hub id>`, or `open_clip:<model>/<tag or file>`."""
    options: CapFiltOptions
    device: str | None = None
    """None = a GPU if there is one; several processes divide the GPUs among themselves."""
    dtype: str | None = None
    """Of the language model and of frozen towers, and of a BLIP; None = as configured."""

    def files(self) -> list[str]:
        """The files and folders among them, each of which every process must see."""
        paths = []
        for name in (self.captioner, self.scorer):
            kind = next((kind for kind in KINDS if name.startswith(kind)), "")
            bare = name.removeprefix(kind)
            candidates = [bare, bare.partition("/")[2]] if kind == OPEN_CLIP else [bare]
            paths += [path for path in candidates if path and Path(path).expanduser().exists()][:1]
        return [str(Path(path).expanduser()) for path in paths]


@dataclass(frozen=True)
class Loaded:
    """Both models, and what they do together."""

    captioner: Captioner
    scorer: PairScorer
    capfilt: CapFilt


@lru_cache(maxsize=1)
def load(models: CapFiltModels) -> Loaded:
    """Open both models, unless this process did so before.

    Raises:
        CheckpointMismatch: if one is not known or damaged.
        ConfigError: if one cannot do what it is to do.
    """
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    device = own_device(models.device)
    if device.type == "cpu":
        torch.set_num_threads(1)  # in each process, however many there are: so their number does not touch rounding
    if models.scorer.startswith(OPEN_CLIP):
        require_open_clip(models.scorer)  # before the captioner, which may be large, is loaded
    captioner, scorer = _captioner(models, device), _scorer(models, device)
    return Loaded(captioner, scorer, CapFilt(captioner, scorer, models.options))


def describe(models: CapFiltModels, _: object = None) -> dict[str, Any]:
    """Plain values on which captions and scores depend; opens both models, so that errors come at once.

    Raises what `load` raises.
    """
    loaded = load(models)
    return {
        "captioner": models.captioner,
        "captioner_hash": fingerprint(loaded.captioner.weights())[:16],
        "scorer": models.scorer,
        "scorer_hash": fingerprint(loaded.scorer.weights())[:16],
        "dtype": models.dtype,
        **asdict(models.options),
    }


def _captioner(models: CapFiltModels, device: torch.device) -> Captioner:
    if models.captioner.startswith(BLIP):
        folder = _folder("captioner", models.captioner, BLIP)
        return BlipCaptioner(folder, device, models.options.prompt, models.dtype)
    model = _own(models.captioner, "blip:<folder or hub id of transformers' BLIP>", models, device)
    return Blip2Captioner(model, models.options.prompt)


def _scorer(models: CapFiltModels, device: torch.device) -> PairScorer:
    if models.scorer.startswith(CLIP):
        return ClipScorer(_folder("scorer", models.scorer, CLIP), device)
    if models.scorer.startswith(OPEN_CLIP):
        return OpenClipScorer(models.scorer.removeprefix(OPEN_CLIP), device)
    model = _own(models.scorer, "clip:<folder or hub id>, or open_clip:<model>/<tag or file>", models, device)
    return MatchScorer(model, models.options.score)


def _own(name: str, others: str, models: CapFiltModels, device: torch.device) -> Blip2:
    """A model in a format of this project."""
    try:
        return load_pretrained(name, device=str(device), dtype=models.dtype)[0]
    except CheckpointMismatch as error:
        if UNDERSTOOD in str(error):
            raise CheckpointMismatch(f"{error}; or {others}") from None
        raise


def _folder(setting: str, given: str, kind: str) -> Path:
    """The folder of a model of transformers."""
    name = given.removeprefix(kind)
    folder = Path(name).expanduser()
    if not folder.exists() and looks_like_hub_id(name):
        folder = fetch(name)
    if not folder.is_dir():
        raise CheckpointMismatch(
            f"{setting} {given}: there is no folder {name}; give {kind}<folder or hub id of transformers' "
            f"{kind.removesuffix(':').upper()}>"
        )
    return folder
