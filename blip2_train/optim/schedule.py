"""Learning rate as a closed function of the optimiser step."""

from __future__ import annotations

import math

from blip2_train.optim.config import OptimizerConfig


def learning_rate(step: int, config: OptimizerConfig) -> float:
    """Linear warm-up, then a cosine that reaches `min_lr` at the last step.

    Args:
        step: Optimiser steps done, 0 … `config.steps`.
        config: Peak, ends and lengths.

    Source: BLIP-2, section 3.4. The released code moves its cosine once per epoch and warms up only inside the first;
    here both count steps.

    Example:
        >>> config = OptimizerConfig(
        ...     lr=1.0, min_lr=0.0, warmup_lr=0.0, warmup_steps=2, steps=4, betas=(0.9, 0.98), weight_decay=0.0
        ... )
        >>> [round(learning_rate(step, config), 3) for step in range(5)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if step < config.warmup_steps:
        return config.warmup_lr + (config.lr - config.warmup_lr) * step / config.warmup_steps
    progress = min(1.0, (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps))
    return config.min_lr + (config.lr - config.min_lr) * (1 + math.cos(math.pi * progress)) / 2
