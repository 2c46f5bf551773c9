"""How many bytes a model takes, as published model cards count them and as they really are.

Nothing here reads a weight, so models on the meta device are measured as well as real ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from blip2_train.models.configs import LanguageModelConfig
from blip2_train.models.language_model import build_language_model
from blip2_train.models.quantization import QuantizedLinear, replace_linear_layers

ADAM_COPIES = 4
"""A card's training figure: weights, gradients and Adam's two moments of every number, in one precision."""


@dataclass(frozen=True, kw_only=True)
class CardCount:
    """What the memory table of a published model card is made of: all numbers of a model, in one precision."""

    numbers: int
    """Parameters and buffers; a vocabulary head tied to the embeddings counts again."""
    largest_layer: int
    """Numbers of the largest part that one device must hold whole: a block of a stack, or a layer without parts."""

    def total_bytes(self, bits: int) -> float:
        """Weights."""
        return self.numbers * bits / 8

    def largest_layer_bytes(self, bits: int) -> float:
        """The largest layer's weights."""
        return self.largest_layer * bits / 8

    def training_bytes(self, bits: int) -> float:
        """Training everything with Adam."""
        return ADAM_COPIES * self.total_bytes(bits)


def card_count(module: nn.Module) -> CardCount:
    """Count a model as Hugging Face's memory estimates do.

    Source: the memory table on the model card of Salesforce/blip2-opt-2.7b, made with accelerate's estimator at a time
    when that did not see that OPT's head is tied.
    """
    embeddings = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    heads = [part.weight for part in module.modules() if isinstance(part, nn.Linear) and id(part.weight) in embeddings]
    numbers = _numbers(module) + sum(weight.numel() for weight in heads)
    return CardCount(numbers=numbers, largest_layer=max(_numbers(part) for part in _layers(module)))


def stored_bytes(module: nn.Module) -> int:
    """Bytes of all parameters and buffers, each once: scales of quantised weights too."""
    return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(module))


def training_state_bytes(module: nn.Module) -> int:
    """Bytes of the gradients and AdamW's two moments of the parameters that train; frozen ones have neither."""
    return sum(3 * p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)


def language_model_bytes(config: LanguageModelConfig, dtype: str, quantization: str = "none") -> int:
    """Bytes of a recipe's language model in another precision.

    Args:
        config: The language model.
        dtype: Of all its weights, or, with `quantization`, of what is not quantised.
        quantization: Of its linear layers; counted without bitsandbytes, too.
    """
    with torch.device("meta"):
        model = build_language_model(replace(config, weights="pretrained", dtype=dtype, quantization="none"))
        return stored_bytes(model if quantization == "none" else replace_linear_layers(model, quantization))


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _numbers(module: nn.Module) -> int:
    unpacked = sum(part.surplus for part in module.modules() if isinstance(part, QuantizedLinear))
    return sum(tensor.numel() for tensor in _tensors(module)) + unpacked


def _layers(module: nn.Module) -> list[nn.Module]:
    """Blocks of stacks, and modules without parts."""
    stacks = [part for part in module.modules() if isinstance(part, nn.ModuleList | nn.Sequential)]
    blocks = [block for stack in stacks for block in stack]
    return blocks + [part for part in module.modules() if not list(part.children())]
