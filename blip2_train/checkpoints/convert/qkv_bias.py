"""The bias of a tower's attention: EVA has one for queries and one for values, others one for all three.

Shape letter: Dv width of the tower.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_QUERY, _VALUE, _ALL = "attn.q_bias", "attn.v_bias", "attn.qkv.bias"


def merge_qkv_biases(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every pair `q_bias`, `v_bias` `(Dv,)` as one `qkv.bias` `(3 Dv,)` whose keys have none; the rest as it is.

    Example:
        >>> one, two = torch.ones(1), torch.full((1,), 2.0)
        >>> merge_qkv_biases({"blocks.0.attn.q_bias": one, "blocks.0.attn.v_bias": two})
        {'blocks.0.attn.qkv.bias': tensor([1., 0., 2.])}
    """
    merged = {}
    for name, tensor in state.items():
        if name.endswith(_QUERY):
            block = name.removesuffix(_QUERY)
            merged[block + _ALL] = torch.cat([tensor, torch.zeros_like(tensor), state[block + _VALUE]])
        elif not name.endswith(_VALUE):
            merged[name] = tensor
    return merged


def split_qkv_biases(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The reverse, for a model `expected` that has two biases.

    A bias of the keys is left out: it adds the same number to all scores of a query, and the softmax takes it away
    again.
    """
    split = {}
    for name, tensor in state.items():
        block = name.removesuffix(_ALL)
        if name.endswith(_ALL) and block + _QUERY in expected:
            split[block + _QUERY], _, split[block + _VALUE] = tensor.chunk(3)
        else:
            split[name] = tensor
    return split
