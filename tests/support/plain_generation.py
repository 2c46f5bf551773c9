"""Generation as transformers does it by itself: prompts padded on the left, and read again by every beam."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, RepetitionPenaltyLogitsProcessor

from blip2_train.models.configs import GenerationOptions
from blip2_train.models.generative import GenerativeModel
from blip2_train.models.language_model import left_padded
from blip2_train.models.nucleus_sampling import NucleusSampling
from blip2_train.models.seen_images import SeenImages


@torch.no_grad()
def plainly_generated(
    model: GenerativeModel,
    images: Tensor | SeenImages,
    input_ids: Tensor,
    attention_mask: Tensor,
    options: GenerationOptions,
    ends: Sequence[int],
    pad: int,
    uniforms: Tensor | None = None,
) -> Tensor:
    """As `GenerativeModel.generate`."""
    embeddings, mask = model.language_inputs(model.soft_prompt(images), input_ids, attention_mask)
    if model.is_encoder_decoder:
        embeddings, mask = (part.flip(1) for part in left_padded(embeddings.flip(1), mask.flip(1)))
    else:
        embeddings, mask = left_padded(embeddings, mask)
    chosen: dict[str, Any] = {
        "num_beams": options.num_beams, "max_new_tokens": options.max_new_tokens, "do_sample": options.do_sample,
        "min_new_tokens": options.min_new_tokens, "eos_token_id": list(ends), "pad_token_id": pad,
    }  # fmt: skip
    if options.num_beams > 1:
        chosen["length_penalty"] = options.length_penalty
    if options.do_sample:
        chosen |= {"top_p": options.top_p, "temperature": options.temperature, "top_k": 0}
    if model.is_encoder_decoder:
        chosen["decoder_start_token_id"] = model.decoder_start_id
    processors: list[Any] = [RepetitionPenaltyLogitsProcessor(options.repetition_penalty)]
    if uniforms is not None:
        chosen |= {"num_return_sequences": uniforms.shape[1], "top_p": 1.0, "temperature": 1.0}
        processors.append(NucleusSampling(uniforms.flatten(0, 1), options.top_p, options.temperature))
    language_model: Any = model.language_model
    language_model.generation_config = GenerationConfig(**chosen)
    generated: Tensor = language_model.generate(
        inputs_embeds=embeddings,
        attention_mask=mask,
        generation_config=language_model.generation_config,
        logits_processor=LogitsProcessorList(processors),
    )
    return generated


def texts_of(ids: Tensor, ends: Sequence[int], front: int) -> list[list[int]]:
    """Rows up to their first end behind `front` tokens, without what pads them."""
    rows = []
    for row in ids.tolist():
        stop = next((index for index in range(front, len(row)) if row[index] in ends), len(row) - 1)
        rows.append(row[: stop + 1])
    return rows
