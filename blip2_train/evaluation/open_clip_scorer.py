"""How well each of an image's own texts fits it, by a CLIP of OpenCLIP's, whatever its towers and tokenizer.

Shape letters: B images, K texts of all of them together, E feature.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from blip2_train.errors import CheckpointMismatch
from blip2_train.evaluation.pair_scoring import image_indices, middle, split_by_image
from blip2_train.from_transformers import refuse_remote_code
from blip2_train.system.error_reasons import reason_of
from blip2_train.system.extras import import_extra
from blip2_train.system.records import JsonObject, read_record

_FORMS = "give open_clip:<model>/<tag>, as ViT-L-14/openai, open_clip:<model>/<file of weights> or open_clip:<folder>"
_CONFIG = "open_clip_config.json"
_MISFIT = "QuickGELU mismatch"


def require_open_clip(scorer: str) -> Any:
    """The package behind a scorer.

    Raises:
        ConfigError: if it is not installed.
    """
    return import_extra("open_clip", f"scorer={scorer}", "or name a scorer=clip:<folder or hub id>")


class OpenClipScorer:
    """Cosine of image and text by a model of the package `open_clip_torch`.

    Weights that were trained with QuickGELU get it: under the name ViT-L-14, open_clip by itself computes those of
    OpenAI with another function, and only warns. Of a file nobody knows; name the model that fits (ViT-L-14-quickgelu).

    Args:
        name: `<model>/<tag>`, `<model>/<file of weights>`, or a folder with `open_clip_config.json` and weights.
        device: Device of the model.

    Raises:
        ConfigError: if the package is not installed.
        CheckpointMismatch: if there is no such model, or its weights cannot be fetched or read.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        open_clip = require_open_clip(f"open_clip:{name}")
        model, weights = _split(name, open_clip)
        known: Any = open_clip.get_pretrained_cfg(model, weights) if weights else None
        try:
            with _quiet(), refuse_remote_code(f"scorer open_clip:{name}"):
                self._model, self._prepare = open_clip.create_model_from_pretrained(
                    model, weights, device=device, force_quick_gelu=bool((known or {}).get("quick_gelu"))
                )
                self._tokenize = open_clip.get_tokenizer(model)
        except CheckpointMismatch:
            raise
        except Exception as error:  # the package raises whatever its readers and its transport raise
            reason = reason_of(error, 200)
            raise CheckpointMismatch(f"scorer open_clip:{name} cannot be used: {reason}") from None
        self._model.eval()
        self._device = device

    @torch.inference_mode()
    def __call__(self, images: Sequence[Image.Image], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        """Scores of each image's own texts, which are cut to what the model reads."""
        read = torch.stack([self._prepare(middle(image)) for image in images]).to(self._device)
        lines = self._tokenize([text for some in texts for text in some]).to(self._device)
        seen = self._model.encode_image(read, normalize=True)  # (B, E)
        text_features = self._model.encode_text(lines, normalize=True)  # (K, E)
        return split_by_image((seen[image_indices(texts).to(self._device)] * text_features).sum(dim=1), texts)

    def weights(self) -> dict[str, Tensor]:
        """The weights of the model."""
        return dict(self._model.state_dict())


def _split(name: str, package: Any) -> tuple[str, str | None]:
    """The model's name and its weights, as open_clip takes them.

    Raises:
        CheckpointMismatch: if there is no such model or no such weights.
    """
    folder = Path(name).expanduser()
    if (file := folder / _CONFIG).is_file():
        _refuse_foreign_code(file)
        return f"local-dir:{folder}", None
    model, _, weights = name.partition("/")
    if model not in package.list_models():
        raise CheckpointMismatch(f"scorer open_clip:{name}: open_clip has no model {model!r}; {_FORMS}")
    if (path := Path(weights).expanduser()).is_file():
        return model, str(path)
    if not package.is_pretrained_cfg(model, weights):
        tags = package.list_pretrained_tags_by_model(model)
        raise CheckpointMismatch(
            f"scorer open_clip:{name}: {model} has no weights {weights!r}, and there is no such file; its tags are "
            f"{', '.join(tags) or 'none'}"
        )
    return model, weights


def _refuse_foreign_code(file: Path) -> None:
    """Refuse a configuration that hands `trust_remote_code` on to the tokenizer or the model that it names.

    Raises:
        CheckpointMismatch: if it does, or cannot be read.
    """
    left: list[Any] = [read_record(file, JsonObject, "download it again")]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if "trust_remote_code" in value:
                raise CheckpointMismatch(
                    f"{file} asks for trust_remote_code, and foreign code is never run; take it out, or give other "
                    "weights"
                )
            left += value.values()
        elif isinstance(value, list):
            left += value


@contextmanager
def _quiet() -> Iterator[None]:
    """Without lines on the root logger, which open_clip would set up; weights of another function are an error."""
    root, handler, before = logging.getLogger(), logging.NullHandler(), logging.root.manager.disable
    root.addHandler(handler)
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=_MISFIT)
            yield
    finally:
        logging.disable(before)
        root.removeHandler(handler)
