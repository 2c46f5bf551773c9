"""`model.generate(**processor(images, text))` as it is written for transformers: ids in, ids out, the same meanings.

Shape letters: B images, Q queries, S tokens of the prompts, N texts of each, T new tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from blip2_train.errors import ConfigError
from blip2_train.evaluation.generation import generation_options
from blip2_train.evaluation.loaded_model import LoadedModel
from blip2_train.evaluation.precision import suitable_autocast
from blip2_train.models.configs import GenerationOptions
from blip2_train.transformers_names import FOR_GENERATE, holds_anyway

_DEFAULTS = {"num_beams": 1, "max_new_tokens": 20, "min_new_tokens": 0, "top_p": 1.0, "top_k": 50}
"""Those of transformers' `generate`."""
_TOTALS = {"max_length": "max_new_tokens", "min_length": "min_new_tokens"}
"""Lengths that count what stands in front of the new tokens, and those that do not."""


@torch.inference_mode()
def generate_ids(
    model: LoadedModel,
    pixel_values: Tensor,
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """Ids of texts about images, as `Blip2ForConditionalGeneration.generate` returns them.

    Args:
        model: A generative model.
        pixel_values: `(B, 3, H, W)`, normalised.
        input_ids: `(B, Q + S)`, int64: a placeholder for each query, then the prompts; or `(B, S)` without the
            placeholders; None = no prompt.
        attention_mask: Of the same shape, 1 = real token; None = all are.
        **options: Names of transformers, see `GenerationOptions`; `max_length` and `min_length` count placeholders and
            prompt as well where the language model has no encoder.

    Returns:
        `(B * N, …)`, int64, image by image: what `input_ids` holds, then new tokens; of a language model with an
        encoder its start token, then new tokens.

    Raises:
        ConfigError: if the ids or an option cannot be used, or have another meaning here.
    """
    network = model.generative("generate")
    if not isinstance(pixel_values, Tensor):
        raise ConfigError(
            f"generate takes the tensors of a processor, as model.generate(**processor(images, text)), and no "
            f"{type(pixel_values).__name__}; model.caption(images, prompt=…) takes images"
        )
    tokenizer, queries = model.processor.language_tokenizer, network.query_tokens.shape[1]
    assert tokenizer is not None
    images, size = len(pixel_values), model.processor.image_size
    if pixel_values.shape[1:] != (3, size, size):
        raise ConfigError(
            f"pixel_values have shape {tuple(pixel_values.shape)}, this model reads (B, 3, {size}, {size})"
        )
    given = model.processor.prompt_batch([""] * images, queries) if input_ids is None else {"input_ids": input_ids}
    ids = given["input_ids"].to(model.device)
    mask = torch.ones_like(ids) if attention_mask is None or input_ids is None else attention_mask.to(model.device)
    if ids.ndim != 2 or len(ids) != images or mask.shape != ids.shape:
        raise ConfigError(
            f"{images} images, but input_ids of shape {tuple(ids.shape)} and attention_mask of shape "
            f"{tuple(mask.shape)}; give a row of both for each image, as processor(images, text) does"
        )
    front = _placeholders(ids, model.processor.placeholder_id, len(tokenizer), queries)
    tokens = tokenizer.generation_tokens
    start = network.text_start(tokens["decoder_start"])
    chosen = _translated(options, len(start) if network.is_encoder_decoder else ids.shape[1], bool(start))
    with suitable_autocast(network):
        pixels = pixel_values.to(model.device, network.query_tokens.dtype)
        new = network.generate(pixels, ids[:, front:], mask[:, front:].bool(), chosen, **tokens)
    before = ids.repeat_interleave(chosen.num_return_sequences, dim=0)
    return new if network.is_encoder_decoder else torch.cat([before, new], dim=1)


def _placeholders(ids: Tensor, placeholder: int, words: int, queries: int) -> int:
    """How many placeholders stand in front of each row."""
    are = ids == placeholder
    count = queries if bool(are[:, :queries].any()) else 0
    if bool(((ids >= words) & ~are).any()) or not bool(are[:, :count].all()) or bool(are[:, count:].any()):
        raise ConfigError(
            f"input_ids are not those of this model, which has ids below {words}, and {placeholder} as "
            f"placeholder of its {queries} queries in front of a row; use the processor that load_pretrained gives"
        )
    return count


def _translated(given: Mapping[str, Any], front: int, has_encoder: bool) -> GenerationOptions:
    """The options, where `front` tokens stand in front of what is new."""
    options = {name: value for name, value in given.items() if not holds_anyway(name, value, FOR_GENERATE)}
    for total, new in _TOTALS.items():
        if (length := options.pop(total, None)) is None or new in options:  # as there, the count of new ones decides
            continue
        if total == "max_length" and length <= front:
            raise ConfigError(
                f"max_length {length} leaves no room behind the {front} tokens of queries and prompt; raise it, or "
                "give max_new_tokens"
            )
        options[new] = max(0, length - front)
    if options.get("repetition_penalty", 1.0) != 1.0 and not has_encoder:
        raise ConfigError(
            "repetition_penalty counts the prompt in transformers where a language model has no encoder, and not here; "
            "use model.caption(…, repetition_penalty=…)"
        )
    return generation_options(_DEFAULTS, options, _TOTALS)
