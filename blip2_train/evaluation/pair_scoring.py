"""How well each of an image's own texts fits it, by this project's models or by CLIP.

Shape letters: B images, K texts of all of them together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from PIL import Image
from torch import Tensor

from blip2_train.data.batches.image_inputs import ImageInput
from blip2_train.errors import CheckpointMismatch, ConfigError
from blip2_train.evaluation.embedding import PAIRS_AT_ONCE, encode_texts, length_batches
from blip2_train.evaluation.inference import Blip2
from blip2_train.evaluation.precision import suitable_autocast
from blip2_train.from_transformers import load_model, load_processor
from blip2_train.models.image_text import ImageTextModel
from blip2_train.system.error_reasons import reason_of

_LONGEST = 8
"""Longest side over shortest of what CLIP's preprocessing is given."""
Score = Literal["itc", "itm"]
"""`itc`: cosine of the text and the best query; `itm`: log-odds of a match, nats."""


class PairScorer(Protocol):
    """Scores images with texts; higher fits better."""

    def __call__(self, images: Sequence[Image.Image], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        """Scores of each image's own texts; B lists."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """Everything that decides the scores."""
        ...


class MatchScorer:
    """Scores by a stage-1 model, by the formulas of training.

    Args:
        model: An image-text model.
        score: Which of its scores.

    Raises:
        ConfigError: if the model reads no texts.
    """

    def __init__(self, model: Blip2, score: Score = "itc") -> None:
        if not model.network.matches_texts:
            raise ConfigError(
                f"scores need {ImageTextModel.title}, but {model.source} is {model.network.title}; give the export of "
                "such a run as scorer, or clip:<folder or id>"
            )
        self._network, self._processor, self._score = model.image_text("scorer"), model.processor, score

    @torch.inference_mode()
    def __call__(self, images: Sequence[ImageInput], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        """Scores of each image's own texts."""
        device = self._network.query_tokens.device
        with suitable_autocast(self._network):
            encoded = encode_texts(self._network, self._processor, [text for some in texts for text in some])
            seen = self._network.encode_image(self._processor.images(images).to(device))
            own = image_indices(texts).to(device)
            if self._score == "itc":
                with torch.autocast(device.type, enabled=False):
                    queries = seen.image_features[own]
                    return split_by_image((queries @ encoded.features[:, :, None]).amax(dim=(1, 2)), texts)
            logits = torch.empty(len(own), 2, device=device)
            for rows, longest in length_batches(encoded.attention_mask.sum(dim=1).cpu(), PAIRS_AT_ONCE):
                chosen = rows.to(device)
                read = (part[chosen, :longest] for part in (encoded.input_ids, encoded.attention_mask))
                logits[chosen] = self._network.match([seen.image_kv.select(own[chosen])], *read).float()
        mismatch, match = logits.unbind(dim=1)
        return split_by_image(match - mismatch, texts)

    def weights(self) -> dict[str, Tensor]:
        """The weights of the model."""
        return dict(self._network.state_dict())


class ClipScorer:
    """Cosine of image and text by a CLIP model of transformers, as BLIP-2 ranked captions (section 3.4: ViT-L/14).

    Args:
        folder: With the model's and the processor's files.
        device: Device of the model.

    Raises:
        CheckpointMismatch: if the folder holds no whole CLIP model.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        from transformers import CLIPModel, CLIPProcessor

        remedy = "give clip:<folder or hub id of transformers' CLIPModel>, as openai/clip-vit-large-patch14"
        try:
            model, info = load_model(CLIPModel, folder, local_files_only=True, output_loading_info=True)
            self._processor: Any = load_processor(CLIPProcessor, folder, local_files_only=True)
        except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
            raise CheckpointMismatch(f"scorer {folder} is no CLIP model ({reason_of(error)}); {remedy}") from None
        if missing := sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]])):
            raise CheckpointMismatch(f"scorer {folder} lacks {missing[0]}, {len(missing)} weights in all; {remedy}")
        self._model: Any = model.to(device).eval()

    @torch.inference_mode()
    def __call__(self, images: Sequence[Image.Image], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        """Scores of each image's own texts, which are cut to what CLIP reads."""
        lines = [text for some in texts for text in some]
        read = self._processor(
            text=lines,
            images=[middle(image) for image in images],
            return_tensors="pt",
            padding=True,
            truncation=True,
        ).to(self._model.device)
        seen = self._model(**read)
        own = image_indices(texts).to(self._model.device)
        return split_by_image((seen.image_embeds[own] * seen.text_embeds).sum(dim=1), texts)

    def weights(self) -> dict[str, Tensor]:
        """The weights of the model."""
        return dict(self._model.state_dict())


def middle(image: Image.Image) -> Image.Image:
    """The middle of a very long image, any other as it is.

    CLIP's preprocessing scales the shorter side to the model's size and cuts out the middle: a line of 1 x 65,535
    pixels would take 10 GB before it is cut.

    Example:
        >>> [middle(Image.new("RGB", size)).size for size in ((40, 30), (60_001, 2))]
        [(40, 30), (17, 2)]
    """
    width, height = image.size
    left, top = (max(0, (side - _LONGEST * min(image.size)) // 2) for side in (width, height))
    return image.crop((left, top, width - left, height - top)) if left or top else image


def image_indices(texts: Sequence[Sequence[str]]) -> Tensor:
    """Index of the image `(K,)` of each text."""
    return torch.arange(len(texts)).repeat_interleave(torch.tensor([len(some) for some in texts]))


def split_by_image(scores: Tensor, texts: Sequence[Sequence[str]]) -> list[list[float]]:
    """Scores `(K,)`, a list for each image."""
    left: Iterator[float] = iter(scores.float().tolist())
    return [[next(left) for _ in some] for some in texts]
