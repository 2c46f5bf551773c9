"""Linear layers of a frozen language model in 8 or 4 bits: smaller weights, the same way for gradients to the input.

The number formats are those of bitsandbytes (extra `quantization`). Its layers are not used: in evaluation they round
the states to 8 bits as well, which doubles the error, and in training they keep every input for the backward pass.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blip2_train.errors import ConfigError
from blip2_train.system.extras import import_extra

if TYPE_CHECKING:  # a model without language model, and its description, need no transformers
    from transformers import PreTrainedModel
    from transformers.pytorch_utils import Conv1D

QUANTIZATIONS = ("none", "int8", "int4")
NF4_BLOCK = 64
"""Neighbouring 4-bit weights that share a scale."""


def quantize_language_model(model: PreTrainedModel, quantization: str) -> PreTrainedModel:
    """Replace the linear layers of a language model, except its vocabulary head, by `QuantizedLinear`.

    Embeddings, norms, biases and the head stay as they are. Each old weight is freed before the next is converted. A
    model on the meta device stays there: it gets the new layers, empty.

    Args:
        model: Any language model of transformers, on any device; changed in place.
        quantization: `int8` (one scale per output), `int4` (4-bit normal floats, one scale per 64 weights), or `none`,
            which changes nothing.

    Returns:
        The same model.

    Raises:
        ConfigError: if bitsandbytes is not installed, or the model has no linear layers to convert.
    """
    if quantization not in QUANTIZATIONS:
        raise ConfigError(f"quantization {quantization!r} is unknown; use one of {', '.join(QUANTIZATIONS)}")
    if quantization == "none":
        return model
    bitsandbytes()
    return replace_linear_layers(model, quantization)


def replace_linear_layers(model: PreTrainedModel, quantization: str) -> PreTrainedModel:
    """The work of `quantize_language_model`; on the meta device, where layers are counted, it needs no bitsandbytes.

    Raises:
        ConfigError: if the model has no linear layers to convert.
    """
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    names = [
        name for name, module in model.named_modules() if type(module) in (nn.Linear, Conv1D) and module is not head
    ]
    if not names:
        raise ConfigError(f"quantization={quantization}: {type(model).__name__} has no linear layers left to quantise")
    for name in names:
        model.set_submodule(name, QuantizedLinear.of(cast(Any, model.get_submodule(name)), quantization))
    return model


class QuantizedLinear(nn.Module):
    """A frozen linear layer with its weight in 8 or 4 bits, computing in the precision of its input.

    Args:
        in_features: Size of the input.
        out_features: Size of the output.
        quantization: `int8` or `int4`.
        bias: Taken over as it is, or None.
    """

    def __init__(
        self, in_features: int, out_features: int, quantization: str, bias: nn.Parameter | None = None
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.quantization = in_features, out_features, quantization
        blocks = -(-in_features * out_features // NF4_BLOCK)
        int8 = quantization == "int8"
        shape = (out_features, in_features) if int8 else (blocks, NF4_BLOCK // 2)
        # int8 for packed 4-bit weights too: transformers' T5 casts its states to any other dtype of `wo.weight`
        empty = torch.empty(shape, dtype=torch.int8, device="meta")
        self.weight = nn.Parameter(empty, requires_grad=False)
        self.scale = nn.Parameter(torch.empty(out_features if int8 else blocks, device="meta"), requires_grad=False)
        self.bias = bias
        self.transposed = False
        """Whether files hold this weight as `(in_features, out_features)`, as GPT-2's do."""

    @classmethod
    def of(cls, linear: nn.Linear | Conv1D, quantization: str) -> Self:
        """The quantised form of a linear layer; an empty one if that lies on the meta device."""
        transposed = not isinstance(linear, nn.Linear)
        weight = (linear.weight.T if transposed else linear.weight).detach()
        layer = cls(weight.shape[1], weight.shape[0], quantization, linear.bias)
        layer.transposed = transposed
        if weight.device.type != "meta":
            stored, scale = quantize_weight(weight, quantization)
            layer.weight = nn.Parameter(stored, requires_grad=False)
            layer.scale = nn.Parameter(scale, requires_grad=False)
        return layer

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """The weight `(out_features, in_features)` that this layer stands for."""
        if self.quantization == "int8":
            return self.weight.to(dtype).mul_(self.scale[:, None] / 127.0)
        # As one row per block: where blocks span rows, bitsandbytes 0.50 on CPUs with AVX-512 takes wrong scales.
        state = _nf4_state(self.scale, self.weight.shape[0], NF4_BLOCK, dtype)
        flat: Tensor = bitsandbytes().functional.dequantize_4bit(self.weight.view(torch.uint8).reshape(-1, 1), state)
        count = self.in_features * self.out_features
        return flat.reshape(-1)[:count].view(self.out_features, self.in_features)

    def forward(self, states: Tensor) -> Tensor:
        """`(…, in_features)` to `(…, out_features)`, in the dtype of the input."""
        bias = None if self.bias is None else self.bias.to(states.dtype)
        if self._has_kernel and states.is_cuda and not (torch.is_grad_enabled() and states.requires_grad):
            return self.by_kernel(states, bias)
        return cast(Tensor, _FrozenLinear.apply(states, bias, self))

    def by_kernel(self, states: Tensor, bias: Tensor | None) -> Tensor:
        """The same for 4 bits by bitsandbytes' kernel, which never writes the whole weight: fast for single tokens."""
        state = _nf4_state(self.scale, self.out_features, self.in_features, states.dtype)
        packed = self.weight.view(torch.uint8).reshape(1, -1)
        output: Tensor = bitsandbytes().matmul_4bit(states, packed, quant_state=state, bias=bias)
        return output

    @property
    def surplus(self) -> int:
        """How many more numbers there are in this layer than are stored: 4-bit ones share a byte, scales are none."""
        return self.in_features * self.out_features - self.weight.numel() - self.scale.numel()

    @property
    def _has_kernel(self) -> bool:
        return self.quantization == "int4" and self.in_features % NF4_BLOCK == 0

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"{self.in_features}, {self.out_features}, {self.quantization}, bias={self.bias is not None}"


def quantize_weight(weight: Tensor, quantization: str) -> tuple[Tensor, Tensor]:
    """What is stored of a weight `(out_features, in_features)`: int8 numbers (4-bit ones two to a byte), and scales.

    Raises:
        ConfigError: if bitsandbytes is not installed.
    """
    functional = bitsandbytes().functional
    if quantization == "int8":
        stored, scale, _ = functional.int8_vectorwise_quant(weight.to(torch.float16).contiguous())
        return stored, scale
    flat = F.pad(weight.reshape(-1), (0, -weight.numel() % NF4_BLOCK)).view(-1, NF4_BLOCK)
    packed, state = functional.quantize_4bit(flat, blocksize=NF4_BLOCK, quant_type="nf4")
    return packed.view(torch.int8).view(-1, NF4_BLOCK // 2), state.absmax


@cache
def bitsandbytes() -> Any:
    """The library behind it.

    Raises:
        ConfigError: if it is not installed.
    """
    logger = logging.getLogger("bitsandbytes")
    level = logger.level
    logger.setLevel(logging.ERROR)  # on some CPUs it recommends, at import, a package that is not needed
    try:
        return import_extra("bitsandbytes", "quantization of a language model", "or choose quantization=none")
    finally:
        logger.setLevel(level)


def _nf4_state(scale: Tensor, rows: int, columns: int, dtype: torch.dtype) -> Any:
    shape, code = torch.Size((rows, columns)), _nf4_code(scale.device)
    state = bitsandbytes().functional.QuantState
    return state(absmax=scale, shape=shape, code=code, blocksize=NF4_BLOCK, quant_type="nf4", dtype=dtype)


@cache
def _nf4_code(device: torch.device) -> Tensor:
    code: Tensor = bitsandbytes().functional.get_4bit_type("nf4", device=device)
    return code


class _FrozenLinear(torch.autograd.Function):
    """Dequantises in both passes, so that neither the input nor a full-size weight is kept between them."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, bias: Tensor | None, layer: QuantizedLinear) -> Tensor:
        ctx.layer = layer
        return F.linear(states, layer.dequantized(states.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0] @ ctx.layer.dequantized(gradients[0].dtype), None, None
