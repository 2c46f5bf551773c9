"""Shows that plans do the same before they are timed, or refuses to time them."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from plain import no_mark
from torch import Tensor, nn

from benchmark.plans import Plan
from blip2_train.errors import TrainingError

EXACT = 1e-4
"""Largest relative difference of losses in float32."""
EXACT_GRADIENTS = 1e-3
"""Largest difference of all gradients together, relative to their norm, in float32."""
ROUNDING = {"32": EXACT, "bf16": 2e-2, "fp16": 5e-3}
"""Largest relative difference of losses, by precision."""


@torch.no_grad()
def feature_errors(plans: Sequence[Plan], model: Any, pixel_values: Tensor) -> list[str]:
    """How far the features of the towers in 8 bits, and of the tower as it is, are from those in float32.

    Args:
        plans: Those with a tower in 8 bits are looked at.
        model: Has the tower.
        pixel_values: `(B, 3, H, W)`; the first two are used.
    """
    quantized = {plan.name: plan.tower for plan in plans if plan.tower is not None and plan.name == "tower_8_bits"}
    if not quantized:
        return []
    images = pixel_values[:2].float()
    with torch.autocast(images.device.type, enabled=False):
        exact = copy.deepcopy(model.vision_model).float()(images)
    towers = {"tower": model.vision_model, **quantized}
    errors = {name: (tower(images).float() - exact).norm() / exact.norm() for name, tower in towers.items()}
    texts = ", ".join(f"{name} {float(error):.2%}" for name, error in errors.items())
    return [f"relative error of features against float32, {len(images)} images: {texts}"]


def prove_losses(plans: Sequence[Plan], batch: object, tolerance: float) -> str:
    """Compare the losses of plans on one batch; models must be in eval mode.

    Raises:
        TrainingError: if one differs from the first by more than `tolerance`, relatively.
    """
    return _equal_losses({plan.name: float(_loss(plan, batch).detach()) for plan in plans}, tolerance)


def prove_training(plans: Sequence[Plan], model: nn.Module, batch: object) -> str:
    """Compare losses and the gradients of all trainable weights on one batch, in float32 and eval mode.

    Raises:
        TrainingError: if those of one plan differ from those of the first.
    """
    losses: dict[str, float] = {}
    first: list[Tensor] = []
    furthest = 0.0
    for plan in plans:
        model.zero_grad(set_to_none=True)
        loss = _loss(plan, batch)
        loss.backward()
        losses[plan.name] = float(loss.detach())
        gradients = [_gradient(p) for p in model.parameters() if p.requires_grad]
        first = first or gradients
        scale = _norm(first)
        apart = _norm([a - b for a, b in zip(gradients, first, strict=True)]) / scale if scale else float("nan")
        if not apart <= EXACT_GRADIENTS:
            raise TrainingError(
                f"the gradients of plan {plan.name} differ by {apart:.1e} of their norm from those of {plans[0].name}: "
                "they do not do the same, so nothing is timed"
            )
        furthest = max(furthest, apart)
    model.zero_grad(set_to_none=True)
    return f"{_equal_losses(losses, EXACT)}, gradients {_apart(furthest)} of their norm"


def prove_ids(what: str, generated: Mapping[str, Tensor]) -> str:
    """Compare generated ids `(B, T)`, by who generated them.

    Raises:
        TrainingError: naming the first image whose ids differ.
    """
    (name, ids), *others = generated.items()
    for other, theirs in others:
        if ids.shape != theirs.shape or not torch.equal(ids, theirs):
            same = ids.shape == theirs.shape
            row = int((ids != theirs).any(dim=1).int().argmax()) if same else 0
            raise TrainingError(
                f"{what}: {name} generates {ids[row].tolist()} for image {row}, {other} {theirs[row].tolist()}: "
                "they do not do the same, so nothing is timed"
            )
    different = len({tuple(row) for row in ids.tolist()})
    return f"{what}: {' and '.join(generated)} generate equal ids for {len(ids)} images, {different} of them distinct"


def _loss(plan: Plan, batch: object) -> Tensor:
    loss = plan.forward(batch, no_mark)
    assert loss is not None
    return loss


def _equal_losses(losses: Mapping[str, float], tolerance: float) -> str:
    (name, reference), *others = losses.items()
    apart = {other: abs(loss - reference) / abs(reference) for other, loss in others}
    for other, difference in apart.items():
        if not difference <= tolerance:  # also where one is no number
            raise TrainingError(
                f"the loss of plan {other} is {losses[other]:.6f}, that of {name} {reference:.6f}: they do not do the "
                "same, so nothing is timed"
            )
    if math.isnan(reference):
        raise TrainingError(f"the loss of plan {name} is no number, so nothing is timed")
    return f"loss {reference:.6f} ({name}), {', '.join(apart)} {_apart(max(apart.values()))}"


def _apart(difference: float) -> str:
    return f"within {difference:.0e}" if difference else "equal in every digit"


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.detach().clone()


def _norm(tensors: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(t.double().square().sum()) for t in tensors))
