"""The ways to generate text that are compared: this project's `generate` and transformers'.

Shape letters: B batch, S prompt tokens, Q queries, T new tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from plain import Mark
from torch import Tensor, nn

from benchmark.huggingface import with_image_tokens
from benchmark.plans import Plan, marked
from blip2_train.models.configs import GenerationOptions
from blip2_train.models.generative import GenerativeModel
from blip2_train.types import Batch

Generate = Callable[["PromptBatch", Mark], Tensor]
"""From images and prompts to new ids `(B, T)`."""


@dataclass(slots=True, kw_only=True)
class PromptBatch(Batch):
    """Images, and what a text about each begins with."""

    input_ids: Tensor
    """`(B, S)`, int64, padded on the left."""
    attention_mask: Tensor
    """`(B, S)`, bool, True = real token."""


def ours(model: GenerativeModel, options: GenerationOptions) -> Generate:
    """This project's `generate`."""
    ends = {"vision": model.vision_model, "qformer": model.language_projection}
    special: Any = _special_tokens(model)

    def write(batch: PromptBatch, mark: Mark) -> Tensor:
        with marked(mark, ends), _first_call(model.language_model, mark):
            ids = model.generate(batch.pixel_values, batch.input_ids, batch.attention_mask, options, **special)
        mark("tokens")
        return ids[:, -options.max_new_tokens :]

    return write


def theirs(model: GenerativeModel, twin: Any, options: GenerationOptions) -> Generate:
    """The `generate` of transformers, with the same search; `twin` is the model's from `share_weights`."""
    ends = {"vision": twin.vision_model, "qformer": twin.language_projection}
    search: dict[str, Any] = {
        "num_beams": options.num_beams,
        "max_new_tokens": options.max_new_tokens,
        "min_new_tokens": options.min_new_tokens,
        "do_sample": False,
        **_special_tokens(model),
    }

    def write(batch: PromptBatch, mark: Mark) -> Tensor:
        ids, mask = with_image_tokens(model, batch.input_ids, batch.attention_mask)
        order = mask.argsort(dim=1, stable=True, descending=model.is_encoder_decoder)  # padding where it belongs
        inputs = {"input_ids": ids.gather(1, order), "attention_mask": mask.gather(1, order)}
        device = batch.pixel_values.device.type
        with marked(mark, ends), _first_call(twin.language_model, mark), torch.autocast(device, enabled=False):
            generated: Tensor = twin.generate(pixel_values=batch.pixel_values, **inputs, **search)
        mark("tokens")
        return generated[:, -options.max_new_tokens :]

    return write


def as_plan(name: str, about: str, group: str, write: Generate) -> Plan:
    """Generating text as something to time."""

    def forward(batch: PromptBatch, mark: Mark) -> None:
        write(batch, mark)

    return Plan(name=name, about=about, forward=forward, group=group)


@contextmanager
def _first_call(language_model: nn.Module, mark: Mark) -> Iterator[None]:
    """Mark where the language model has read the prompt: the end of its first pass."""
    reading = True

    def read(*_: Any) -> None:
        nonlocal reading
        if reading:
            mark("prompt")
        reading = False

    network: Any = language_model  # this project calls it below its vocabulary head, OPT's own class its decoder
    hooks = [part.register_forward_hook(read) for part in {network, network.base_model}]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _special_tokens(model: GenerativeModel) -> dict[str, int]:
    """End and padding; which they are does not matter where the number of new tokens is fixed."""
    config = model.language_model.config
    end = config.eos_token_id if isinstance(config.eos_token_id, int) else 2
    return {"eos_token_id": end, "pad_token_id": config.pad_token_id or 0}
