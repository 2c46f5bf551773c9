"""In 16 bits what is generated for a row does not depend on how far the prompts of others make it be padded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from gpu_device import DEVICE, MARKS
from tiny_generation import WORDS, generative_model
from torch import Tensor, nn

from blip2_train.models.configs import GenerationOptions
from blip2_train.models.generative import GenerativeModel

pytestmark = MARKS
LENGTHS = (9, 1, 4, 2)
FAMILIES = ["opt", "t5", "llama", "gpt2"]
HALVES = [torch.bfloat16, torch.float16]


def model_in(family: str, dtype: torch.dtype) -> GenerativeModel:
    model = generative_model(family).to(DEVICE).eval()
    model.language_model.to(dtype)
    return model


def prompts() -> tuple[Tensor, Tensor, Tensor]:
    """Images, and prompts of unequal length with their mask, padded on the left."""
    draw = torch.Generator().manual_seed(3)
    longest = max(LENGTHS)
    mask = torch.arange(longest).flip(0) < torch.tensor(LENGTHS)[:, None]
    ids = torch.randint(3, WORDS, mask.shape, generator=draw).masked_fill(~mask, 1)
    images = torch.randn(len(LENGTHS), 3, 32, 32, generator=draw)
    return images.to(DEVICE), ids.to(DEVICE), mask.to(DEVICE)


@contextmanager
def first_logits(model: GenerativeModel) -> Iterator[list[Tensor]]:
    """The vocabulary head's answers, each call's, the last position's."""
    seen: list[Tensor] = []
    head: nn.Module = model.language_model.get_output_embeddings()
    hook = head.register_forward_hook(lambda module, inputs, output: seen.append(output[:, -1].float()))
    try:
        yield seen
    finally:
        hook.remove()


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_of_a_row_alone_and_among_longer_ones(family: str, dtype: torch.dtype) -> None:
    model, (images, ids, mask) = model_in(family, dtype), prompts()
    one = GenerationOptions(num_beams=1, min_new_tokens=1, max_new_tokens=1)
    with first_logits(model) as together:
        model.generate(images, ids, mask, one, eos_token_id=2, pad_token_id=1)
    for row, length in enumerate(LENGTHS):
        with first_logits(model) as alone:
            model.generate(
                images[row : row + 1], ids[row : row + 1, -length:], mask[row : row + 1, -length:], one,
                eos_token_id=2, pad_token_id=1,
            )  # fmt: skip
        assert together[0][row].isfinite().all()
        error = (together[0][row] - alone[0][0]).norm() / alone[0][0].norm()
        assert error <= 0.03, f"row {row} of {length} tokens: {error}"


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_state_is_finite(family: str, beams: int) -> None:
    """At padding too: a NaN there has been carried to other rows by kernels that mask by adding."""
    model, (images, ids, mask) = model_in(family, torch.bfloat16), prompts()
    wrong: list[str] = []

    def look(name: str, output: object) -> None:
        for tensor in output if isinstance(output, tuple) else (output,):
            if isinstance(tensor, Tensor) and tensor.is_floating_point() and not tensor.isfinite().all():
                wrong.append(name)

    for name, module in model.language_model.named_modules():
        module.register_forward_hook(lambda module, inputs, output, name=name: look(name, output))
    search = GenerationOptions(num_beams=beams, min_new_tokens=4, max_new_tokens=4)
    model.generate(images, ids, mask, search, eos_token_id=2, pad_token_id=1)
    assert wrong == []
