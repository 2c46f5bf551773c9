"""A step of stage 1 on the device: as on a CPU, the same twice, and one line where memory ends."""

from __future__ import annotations

import pytest
import torch
from gpu_device import DEVICE, MARKS, ON_GPU
from tiny import image_text_batch, image_text_model
from torch import Tensor

from blip2_train.errors import TrainingError
from blip2_train.objectives.representation import RepresentationObjective
from blip2_train.training.out_of_memory import out_of_memory_in_one_line

pytestmark = MARKS


def stage_1(device: str, autocast: torch.dtype | None = None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Losses and gradients of a small model, on the CPU."""
    model, batch = image_text_model().to(device), image_text_batch().to(device)
    with torch.autocast(device, autocast, enabled=autocast is not None):
        output = RepresentationObjective()(model, batch, torch.Generator().manual_seed(0))
    output.total.backward()
    gradients = {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}
    return {name: term.detach().cpu() for name, term in output.terms.items()}, gradients


def test_losses_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    (expected, slopes), (terms, gradients) = stage_1("cpu"), stage_1(DEVICE)
    torch.testing.assert_close(terms, expected, rtol=1e-4, atol=1e-5)
    assert gradients.keys() == slopes.keys()
    for name, gradient in gradients.items():
        assert (gradient - slopes[name]).norm() <= 1e-3 * slopes[name].norm() + 1e-6, name


def test_losses_in_bfloat16() -> None:
    expected, terms = stage_1("cpu")[0], stage_1(DEVICE, torch.bfloat16)[0]
    for name in ("itc", "itg"):  # other negatives may be drawn for the third
        torch.testing.assert_close(terms[name], expected[name], rtol=0.05, atol=0.05)
    assert terms["itm"].isfinite()


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_two_runs_of_a_step_are_the_same(autocast: torch.dtype | None) -> None:
    """Losses to the last bit; gradients but for the order in which a device adds them up."""
    (terms, gradients), (again, slopes) = stage_1(DEVICE, autocast), stage_1(DEVICE, autocast)
    assert terms == again
    for name, gradient in gradients.items():
        assert (gradient - slopes[name]).norm() <= 1e-3 * gradient.norm() + 1e-6, name


def training_step() -> None:
    """Ask for more memory than any device has, as a step with too many samples does."""
    torch.empty(2**50, dtype=torch.uint8, device=DEVICE)


def test_one_line_where_memory_ends() -> None:
    with pytest.raises(TrainingError) as caught, out_of_memory_in_one_line(64, 1, 1):
        training_step()
    line = str(caught.value)
    assert "\n" not in line and "accumulate=2" in line and "too little memory" in line
    if ON_GPU:
        assert torch.ones(1, device=DEVICE).item() == 1  # the device goes on working
