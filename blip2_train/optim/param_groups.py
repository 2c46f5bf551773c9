"""Which parameters AdamW updates, with which weight decay and which share of the learning rate."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from blip2_train.optim.config import OptimizerConfig

_BLOCK = re.compile(r"(?:^|\.)vision_model\.(?:.*\.)?blocks\.(\d+)\.")
_TOWER = re.compile(r"(?:^|\.)vision_model\.")
_ADAPTER = re.compile(r"\.lora_[AB]\.")
_EMBEDDINGS = frozenset(
    "query_tokens word_embeddings position_embeddings pos_embed cls_token reg_token dist_token "
    "relative_position_bias_table freqs".split()  # the last: learned rotary frequencies
)


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """Parameters that share weight decay and learning-rate scale."""

    name: str
    parameters: list[nn.Parameter]
    parameter_names: list[str]
    weight_decay: float
    lr_scale: float
    """Factor on the scheduled learning rate; written into the optimiser's `lr`, so that it takes effect."""


def takes_weight_decay(name: str, parameter: nn.Parameter, decay_embeddings: bool) -> bool:
    """Whether a parameter decays: matrices do; vectors, scalars (the temperature) and biases do not.

    The released code decays the temperature, which is 0-dimensional, by oversight; here it never decays.
    """
    if parameter.ndim <= 1 or name.endswith("bias"):
        return False
    return decay_embeddings or _EMBEDDINGS.isdisjoint(name.split("."))


def layer_scale(name: str, num_blocks: int, decay: float) -> float:
    """Share of the learning rate by depth in the vision tower: `decay ** (num_blocks + 1 - layer)`.

    Args:
        name: Parameter name. The stem (patch and position embeddings, class token, first norm) is layer 0, block b is
            layer b + 1, everything outside the tower has scale 1.
        num_blocks: Blocks that the tower runs.
        decay: Factor per layer; 1 = off.

    Source: BLIP-2, tables 7 to 9 ("layer-wise lr decay"). The released code computes these scales and applies none.

    Example:
        >>> [layer_scale(f"vision_model.tower.{part}", 2, 0.5) for part in ("pos_embed", "blocks.1.mlp.fc1.bias")]
        [0.125, 0.5]
    """
    if decay == 1.0 or not _TOWER.search(name):
        return 1.0
    block = _BLOCK.search(name)
    return float(decay ** (num_blocks + 1 - (int(block.group(1)) + 1 if block else 0)))


def parameter_groups(
    parameters: Iterable[tuple[str, nn.Parameter]], num_blocks: int, config: OptimizerConfig
) -> list[ParameterGroup]:
    """Every trainable parameter in exactly one group, adapters in others than the rest.

    Where a model is sharded among processes adapters are not, and one fused update takes tensors of one kind only.

    Args:
        parameters: Names and parameters, for instance `model.named_parameters()`.
        num_blocks: Blocks that the vision tower runs.
        config: Weight decay, layer decay and whether embeddings decay.
    """
    groups: dict[tuple[float, float, bool], ParameterGroup] = {}
    for name, parameter in parameters:
        if not parameter.requires_grad:
            continue
        decay = config.weight_decay if takes_weight_decay(name, parameter, config.decay_embeddings) else 0.0
        scale = layer_scale(name, num_blocks, config.layer_decay)
        adapter = _ADAPTER.search(name) is not None
        label = ("adapters, " if adapter else "") + ("decay" if decay else "no decay")
        label += f", lr x {scale:.4g}" if scale != 1.0 else ""
        group = groups.setdefault(
            (decay, scale, adapter),
            ParameterGroup(name=label, parameters=[], parameter_names=[], weight_decay=decay, lr_scale=scale),
        )
        group.parameters.append(parameter)
        group.parameter_names.append(name)
    return list(groups.values())


def build_adamw(groups: list[ParameterGroup], config: OptimizerConfig) -> torch.optim.AdamW:
    """Fused AdamW over the groups; each keeps its `lr_scale`, which `set_learning_rate` applies."""
    return torch.optim.AdamW(
        [
            {"params": g.parameters, "weight_decay": g.weight_decay, "lr_scale": g.lr_scale, "name": g.name}
            for g in groups
        ],
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        fused=True,
    )


def optimizer_difference(now: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]]) -> str | None:
    """Where the `param_groups` of this run and those of a saved one part, in words; None if they agree.

    PyTorch takes the saved weight decay, betas and scales without a word, and moments by their order.
    """
    updates, updated = (
        ", ".join(f"{len(group['params'])} ({group['name']})" for group in groups) for groups in (now, before)
    )
    if updates != updated:
        return f"the tensors that its optimiser updates are {updated}, those of this run {updates}"
    for new, old in zip(now, before, strict=True):
        for name in ("weight_decay", "betas", "eps"):
            if new[name] != old[name]:
                return f"it was written with optim.{name}={old[name]}, this run has {new[name]}"
    return None


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Write `lr` times its scale into each group."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
