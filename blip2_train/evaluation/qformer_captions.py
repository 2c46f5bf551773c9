"""Captions by a stage-1 model: its Q-Former writes them itself, without a language model.

Shape letters: B images of a batch, N captions of each, S tokens read before the first new one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from blip2_train.data.batches.processor import ImageInput, Processor
from blip2_train.data.text_cleaning import clean_caption
from blip2_train.errors import ConfigError
from blip2_train.evaluation.generation import PromptTooLong, batches
from blip2_train.evaluation.wordpiece import decode_word_pieces
from blip2_train.models.configs import GenerationOptions
from blip2_train.models.image_text import ImageTextModel

QFORMER_CAPTIONING: dict[str, Any] = {"num_beams": 3, "max_new_tokens": 29, "min_new_tokens": 9, "length_penalty": 1.0}
"""How the released code generates: at least 10 and at most 30 tokens, of which `[DEC]` is one."""


def qformer_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """`QFORMER_CAPTIONING`; the shortest caption is no longer than the longest that was asked for."""
    longest = given.get("max_new_tokens")
    if not isinstance(longest, int):
        return QFORMER_CAPTIONING
    return QFORMER_CAPTIONING | {"min_new_tokens": min(QFORMER_CAPTIONING["min_new_tokens"], longest)}


@torch.inference_mode()
def generate_captions(
    network: ImageTextModel,
    processor: Processor,
    images: Sequence[ImageInput],
    prompt: str,
    options: GenerationOptions,
    batch_size: int,
    uniforms: Tensor | None = None,
) -> list[str]:
    """What a stage-1 model says of each image behind a prompt: new text only.

    Args:
        network: The model, on its device.
        processor: With the tokenizer of its Q-Former.
        images: Read batch by batch.
        prompt: What all captions go on from; "" = nothing but `[DEC]`, as in the released code.
        options: Search or sampling.
        batch_size: B.
        uniforms: `(images, N, max_new_tokens)`: see `ImageTextModel.generate`.

    Returns:
        A caption of each image; with `uniforms` N of each, image by image.

    Raises:
        PromptTooLong: before any image is read.
        ConfigError: if nothing is left of the prompt once it is cleaned as in training.
        ShardError: naming a file that is no readable image.
    """
    tokenizer, device = processor.text_tokenizer, network.query_tokens.device
    start = _start(network, tokenizer, prompt, options.max_new_tokens).to(device)
    texts: list[str] = []
    for rows in batches(len(images), batch_size):
        pixels = processor.images(images[rows]).to(device)
        generated = network.generate(
            pixels,
            start.expand(len(pixels), -1),
            options,
            None if uniforms is None else uniforms[rows].to(device),
            eos_token_id=tokenizer.sep_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        texts += [decode_word_pieces(tokenizer, ids) for ids in generated.tolist()]
    return texts


def _start(network: ImageTextModel, tokenizer: Any, prompt: str, new_tokens: int) -> Tensor:
    """Ids `(1, S)` of `[DEC]` and the prompt."""
    cleaned = clean_caption(prompt)
    if prompt and not cleaned:
        raise ConfigError(f"prompt {prompt!r} is empty once cleaned as in training; write words, or leave it out")
    words = tokenizer(cleaned, add_special_tokens=False).input_ids if cleaned else []
    longest = network.qformer_config.max_positions
    room = longest + 1 - new_tokens  # the last new token is not read
    if 1 + len(words) > room:
        raise PromptTooLong(
            f"prompt {prompt!r} takes {1 + len(words)} tokens with [DEC], but beside {new_tokens} new tokens the "
            f"Q-Former has room for {max(0, room)} of its {longest}; shorten it, or ask for fewer new tokens"
        )
    return torch.tensor([[network.decoder_start_token_id, *words]])
