"""Operations of packed texts, counted on tensors without values, are those of a real step."""

from dataclasses import replace

import pytest
import torch
from benchmark.representation import RepresentationStage
from plain import no_mark
from tiny import image_text_batch, image_text_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from blip2_train.models.image_text import ImageTextModel
from blip2_train.objectives.representation import RepresentationObjective
from blip2_train.types import ImageTextBatch


def flops(model: ImageTextModel, batch: ImageTextBatch, plan: str, count_only: bool) -> int:
    (step,) = RepresentationStage().build_plans((plan,), model, RepresentationObjective(), count_only)
    with FlopCounterMode(display=False) as counter:
        loss = step.forward(batch, no_mark)
        assert loss is not None
        torch.autograd.backward(loss)
    return int(counter.get_total_flops())


@pytest.mark.slow
@pytest.mark.parametrize("real", [4, 9])
def test_as_many_operations_as_a_real_step(real: int) -> None:
    mask = (torch.arange(12) < real).expand(5, 12)
    batch = replace(image_text_batch(5), attention_mask=mask, longest_text=9)
    counted = {}
    with sdpa_kernel(SDPBackend.MATH):
        for plan in ("shared", "padded"):
            counted[plan] = flops(image_text_model().train(), batch, plan, count_only=False)
            with torch.device("meta"):
                empty = image_text_model()
            with FakeTensorMode(allow_non_fake_inputs=True):
                model = empty.to_empty(device="cpu").train()
                assert flops(model, batch, plan, count_only=True) == counted[plan]
    assert counted["shared"] < counted["padded"]
