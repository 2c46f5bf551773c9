"""The numbers of AdamW and its schedule, checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass

from blip2_train.errors import refuse


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with linear warm-up and cosine decay, stepped once per optimiser step."""

    lr: float
    """Peak learning rate."""
    min_lr: float
    """Learning rate at the last step."""
    warmup_lr: float
    """Learning rate at step 0."""
    warmup_steps: int
    """Optimiser steps from `warmup_lr` to `lr`."""
    steps: int
    """Optimiser steps of the whole run."""
    betas: tuple[float, float]
    weight_decay: float
    eps: float = 1e-8
    layer_decay: float = 1.0
    """Factor per block of a trained vision tower, from its last block down; 1 = off."""
    clip_norm: float | None = None
    """Largest gradient norm; None = no clipping (as in the paper)."""
    decay_embeddings: bool = True
    """Whether query tokens, embeddings, positions and class token take weight decay (the released code: yes)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        checks = [
            ("lr", self.lr > 0, "positive"),
            ("min_lr", 0 <= self.min_lr <= self.lr, f"between 0 and lr ({self.lr})"),
            ("warmup_lr", 0 <= self.warmup_lr <= self.lr, f"between 0 and lr ({self.lr})"),
            ("steps", self.steps >= 1, "at least 1"),
            ("warmup_steps", 0 <= self.warmup_steps <= self.steps, f"between 0 and steps ({self.steps})"),
            ("betas", len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas), "two numbers in [0, 1)"),
            ("weight_decay", self.weight_decay >= 0, "0 or more"),
            ("eps", self.eps > 0, "positive"),
            ("layer_decay", 0 < self.layer_decay <= 1, "in (0, 1]"),
            ("clip_norm", self.clip_norm is None or self.clip_norm > 0, "positive, or null for no clipping"),
        ]
        refuse([f"optim.{name} must be {want}, got {getattr(self, name)}" for name, good, want in checks if not good])
