"""Features of images, texts and pairs, and the scores of pairs, computed as in training.

What `image_text_features` and `generative_features` return, by name (N rows; Q queries, D hidden size, E feature size,
T = `max_text_length` tokens, Dl hidden size of a language model):

| name | shape | of | what it is |
| --- | --- | --- | --- |
| `image_states` | `(N, Q, D)` | images | the queries after reading the image |
| `image_features` | `(N, Q, E)` | images | those projected, unit length: what contrast compares |
| `text_states` | `(N, T, D)` | texts | all tokens of the text, zeros where `text_mask` is False |
| `text_mask` | `(N, T)` | texts | bool, True = real token |
| `text_features` | `(N, E)` | texts | the first token projected, unit length |
| `multimodal_states` | `(N, Q, D)` | pairs | the queries after reading image and text: what matching judges |
| `query_states` | `(N, Q, D)` | images | generative models: the queries after reading the image |
| `soft_prompt` | `(N, Q, Dl)` | images | generative models: what the language model reads |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from blip2_train.data.batches.image_inputs import ImageInput
from blip2_train.data.batches.processor import Processor
from blip2_train.errors import ConfigError
from blip2_train.evaluation.generation import batches
from blip2_train.models import masks
from blip2_train.models.generative import GenerativeModel
from blip2_train.models.image_text import ImageTextModel
from blip2_train.objectives.contrastive import image_text_similarity
from blip2_train.types import ImageKeyValues

TEXTS_AT_ONCE, PAIRS_AT_ONCE = 256, 128


class MatchScores(NamedTuple):
    """How well N images and M texts belong together."""

    itc: Tensor
    """`(N, M)`, float32, in [-1, 1]: cosine of the text and the best query, not divided by the temperature."""
    itm: Tensor
    """`(N, M)`, float32, in [0, 1]: probability that image and text match."""


class EncodedTexts(NamedTuple):
    """M texts, ready to be compared with images."""

    input_ids: Tensor
    """`(M, T)`, int64."""
    attention_mask: Tensor
    """`(M, T)`, bool, True = real token."""
    features: Tensor
    """`(M, E)`, float32, unit length."""


def length_batches(lengths: Tensor, size: int) -> Iterator[tuple[Tensor, int]]:
    """Texts in groups of like length, so that little of a group is padding.

    Args:
        lengths: `(M,)`, int64, on the CPU: tokens of each text.
        size: Texts of a group.

    Yields:
        Rows of a group, int64, and the number of tokens of its longest text.

    Example:
        >>> [(rows.tolist(), longest) for rows, longest in length_batches(torch.tensor([5, 2, 9, 2]), 2)]
        [([1, 3], 2), ([0, 2], 9)]
    """
    for rows in lengths.argsort(stable=True).split(size):
        yield rows, int(lengths[rows[-1]])


def encode_texts(network: ImageTextModel, processor: Processor, texts: Sequence[str]) -> EncodedTexts:
    """Tokenise and encode texts once, for any number of images.

    Raises:
        ConfigError: if a text is empty.
    """
    device = network.query_tokens.device
    ids, mask = processor.texts(texts)
    groups = list(length_batches(mask.sum(dim=1), TEXTS_AT_ONCE))
    features = [
        network.encode_text(*(part[rows, :longest].to(device) for part in (ids, mask))) for rows, longest in groups
    ]
    order = torch.cat([rows for rows, _ in groups]).argsort().to(device)
    return EncodedTexts(ids.to(device), mask.to(device), torch.cat(features)[order])


def match_pairs(network: ImageTextModel, pixel_values: Tensor, texts: EncodedTexts) -> tuple[Tensor, Tensor]:
    """Similarity and probability of a match of every image with every text.

    Args:
        network: The stage-1 model.
        pixel_values: `(B, 3, H, W)`.
        texts: M of them.

    Returns:
        `(B, M)` cosine of the text and the best query, not divided by the temperature; `(B, M)` probability of a match.
    """
    images, size = network.encode_image(pixel_values), len(pixel_values)
    with torch.autocast(pixel_values.device.type, enabled=False):
        itc = image_text_similarity(images.image_features, texts.features)
    itm = torch.empty_like(itc)
    for group, longest in length_batches(texts.attention_mask.sum(dim=1).cpu(), max(1, PAIRS_AT_ONCE // size)):
        rows = group.to(itm.device)
        ids, mask = texts.input_ids[rows, :longest], texts.attention_mask[rows, :longest]
        pairs = (ids.repeat_interleave(size, dim=0), mask.repeat_interleave(size, dim=0))
        logits = network.match([images.image_kv.repeat(len(ids))], *pairs)
        itm[:, rows] = logits.softmax(dim=1)[:, 1].reshape(len(ids), size).T
    return itc, itm


def match_all(
    network: ImageTextModel, processor: Processor, images: Sequence[ImageInput], texts: Sequence[str], batch_size: int
) -> MatchScores:
    """Scores of N images, `batch_size` at once, with M texts, on the CPU; raises as `Blip2.match`."""
    itc, itm = torch.empty(2, len(images), len(texts))
    if texts:
        encoded = encode_texts(network, processor, texts)
        for rows in batches(len(images), batch_size):
            pixels = processor.images(images[rows]).to(network.query_tokens.device)
            itc[rows], itm[rows] = match_pairs(network, pixels, encoded)
    return MatchScores(itc, itm)


def paired(images: Sequence[ImageInput] | None, texts: Sequence[str] | None) -> int:
    """How many there are of what is given.

    Raises:
        ConfigError: if there is nothing, or both are given in different numbers.
    """
    counts = {len(part) for part in (images, texts) if part is not None}
    if len(counts) != 1 or 0 in counts:
        raise ConfigError(
            f"{len(images or ())} images and {len(texts or ())} texts are no pairs; give a text for each image, "
            "one for all, or only images or only texts"
        )
    return counts.pop()


def generative_features(network: GenerativeModel, pixel_values: Tensor) -> dict[str, Tensor]:
    """Features of B images by a generative model, which reads images only (see the table above)."""
    states = network.query_states(pixel_values)
    return _on_cpu({"query_states": states, "soft_prompt": network.language_projection(states)})


def image_text_features(
    network: ImageTextModel, processor: Processor, pixel_values: Tensor | None, texts: Sequence[str] | None
) -> dict[str, Tensor]:
    """Features of B images, B texts, or B pairs, on the CPU in float32 (see the table above).

    Args:
        network: An image-text model.
        processor: Its tokenizer reads the texts.
        pixel_values: `(B, 3, H, W)`, or None.
        texts: B of them, or None.
    """
    outputs: dict[str, Tensor] = {}
    image_kv: ImageKeyValues | None = None
    if pixel_values is not None:
        images = network.encode_image(pixel_values)
        image_kv = images.image_kv
        outputs |= {"image_states": images.query_states, "image_features": images.image_features}
    if texts is not None:
        outputs |= _text_features(network, processor, texts, image_kv)
    return _on_cpu(outputs)


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: (value if value.dtype == torch.bool else value.float()).cpu() for name, value in tensors.items()}


def _text_features(
    network: ImageTextModel, processor: Processor, texts: Sequence[str], image_kv: ImageKeyValues | None
) -> dict[str, Tensor]:
    device = network.query_tokens.device
    ids, mask = (part.to(device) for part in processor.texts(texts))
    embedded = network.embeddings(ids)
    states = network.qformer(embedded, num_queries=0, mask=masks.unimodal(mask)).states
    free = processor.max_text_length - ids.shape[1]
    outputs = {
        "text_states": F.pad(states.masked_fill(~mask[:, :, None], 0.0), (0, 0, 0, free)),
        "text_mask": F.pad(mask, (0, free)),
        "text_features": F.normalize(network.text_projection(states[:, 0]).float(), dim=-1),
    }
    if image_kv is not None:
        queries = network.query_tokens.expand(len(texts), -1, -1)
        both = masks.bidirectional(mask, queries.shape[1])
        read = network.qformer(
            torch.cat([queries, embedded], dim=1), num_queries=queries.shape[1], mask=both, image_kvs=[image_kv]
        )
        outputs["multimodal_states"] = read.states[:, : queries.shape[1]]
    return outputs
