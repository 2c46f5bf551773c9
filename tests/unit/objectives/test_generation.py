"""The chunked cross-entropy equals the plain one in values and gradients, and its memory does not grow."""

import pytest
import torch
from torch.nn import functional as F

from blip2_train.errors import ConfigError
from blip2_train.objectives.generation import GenerationObjective, chunked_cross_entropy


@pytest.mark.parametrize("chunk", [1, 4, 7, 100])
@pytest.mark.parametrize("with_bias", [True, False])
def test_equals_the_plain_cross_entropy(chunk: int, with_bias: bool) -> None:
    states = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(11, 5, dtype=torch.float64)
    bias = torch.randn(11, dtype=torch.float64) if with_bias else None
    labels = torch.randint(0, 11, (7,))
    total, right = chunked_cross_entropy(states, weight, bias, labels, chunk)
    (total * 3).backward()
    fast, states.grad = states.grad, None
    logits = F.linear(states, weight, bias)
    reference = F.cross_entropy(logits, labels, reduction="sum")
    (reference * 3).backward()
    torch.testing.assert_close(total, reference, rtol=1e-12, atol=0)
    torch.testing.assert_close(fast, states.grad, rtol=1e-12, atol=1e-14)
    assert right.item() == (logits.argmax(1) == labels).sum().item()


def test_no_labels_are_no_loss() -> None:
    states = torch.randn(0, 5, requires_grad=True)
    total, right = chunked_cross_entropy(states, torch.randn(11, 5), None, torch.empty(0, dtype=torch.int64))
    total.backward()
    assert total.item() == right.item() == 0.0 and states.grad is not None


def test_a_head_that_trains_is_refused() -> None:
    with pytest.raises(ValueError, match="frozen"):
        chunked_cross_entropy(torch.randn(2, 5), torch.randn(11, 5, requires_grad=True), None, torch.tensor([1, 2]))


def test_what_is_kept_for_the_backward_pass_does_not_grow_with_the_vocabulary() -> None:
    kept = []
    for words in (100, 10_000):
        sizes: list[int] = []
        states = torch.randn(64, 8, requires_grad=True)

        def pack(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            chunked_cross_entropy(states, torch.randn(words, 8), None, torch.zeros(64, dtype=torch.int64), 16)
        kept.append(sum(sizes))
    assert kept[0] == kept[1] == 64 * 8


def test_a_chunk_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="chunk"):
        GenerationObjective(chunk=0)
