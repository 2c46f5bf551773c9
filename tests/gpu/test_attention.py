"""Masked attention in 16 bits, where the kernels of newer devices have answered NaN (pytorch#196678)."""

from __future__ import annotations

import pytest
import torch
from gpu_device import DEVICE, MARKS
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

pytestmark = MARKS
LENGTH = 64
"""32 queries and 32 tokens: a length that leaves 64 when divided by 128."""
HALVES = [torch.bfloat16, torch.float16]


def outcomes(inputs: list[Tensor], mask: Tensor) -> list[Tensor]:
    """Result and gradients, in float32."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    result = F.scaled_dot_product_attention(*leaves, attn_mask=mask)
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(5)).to(result)
    return [result.detach().float(), *(g.float() for g in torch.autograd.grad(result, leaves, weights))]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("shift", [0.0, -150.0])
@pytest.mark.parametrize("rows", [(LENGTH,), (LENGTH, LENGTH)])
def test_sequences_of_64_with_a_mask(dtype: torch.dtype, shift: float, rows: tuple[int, ...]) -> None:
    """Also where every score is far below zero, and with it the logarithm of their sum."""
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(6, 12, LENGTH, 64, generator=draw) for _ in range(3))
    query, key = query / 4, key / 4
    query[..., 0], key[..., 0] = 8.0, shift  # adds `shift` to each score: 8 * shift / sqrt(64)
    real = torch.arange(LENGTH) < torch.tensor([64, 63, 48, 40, 34, 33])[:, None]
    mask = real[:, None, None, :]
    if len(rows) == 2:
        mask = mask & torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
    inputs, mask = [tensor.to(DEVICE, dtype) for tensor in (query, key, value)], mask.to(DEVICE)
    with sdpa_kernel(SDPBackend.MATH):
        expected = outcomes([tensor.float() for tensor in inputs], mask)
    for name, actual, right in zip(("result", "query", "key", "value"), outcomes(inputs, mask), expected, strict=True):
        assert actual.isfinite().all(), name
        actual, right = actual[..., 1:], right[..., 1:]  # what carries the shift is a difference of large numbers
        assert (actual - right).norm() <= 0.03 * right.norm(), name


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("size", [88, 80, 64])
def test_towers_and_language_models_without_a_mask(dtype: torch.dtype, size: int) -> None:
    """Head sizes of ViT-g, OPT-2.7B and the Q-Former; 257 patches."""
    draw = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, 4, 257, size, generator=draw).to(DEVICE, dtype) for _ in range(3)]
    with sdpa_kernel(SDPBackend.MATH):
        expected = F.scaled_dot_product_attention(*(tensor.float() for tensor in inputs))
    actual = F.scaled_dot_product_attention(*inputs).float()
    assert (actual - expected).norm() <= 0.02 * expected.norm()
