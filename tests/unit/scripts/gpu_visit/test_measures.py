"""What a visit measures: the released plan with its own attention, and the calls of attention that passes make."""

from __future__ import annotations

import pytest
import torch
from benchmark.plans import Plan
from gpu_visit.attention import exactness
from gpu_visit.attention_calls import Call, Recorder
from gpu_visit.stage1 import explicit_attention, released_whole
from gpu_visit.towers import compile_blocks, relative_error
from plain import PlainReference, no_mark
from tiny import image_text_batch, image_text_model
from torch.nn import functional as F

from blip2_train.objectives.representation import RepresentationObjective


def test_the_released_plan_is_the_same_with_explicit_attention() -> None:
    model, batch = image_text_model().double(), image_text_batch()
    batch.pixel_values = batch.pixel_values.double()
    reference = PlainReference(model, RepresentationObjective(), reuse_queries=True)
    plan = Plan(name="released", about="", forward=lambda batch, mark: reference(batch, None, mark))
    whole = released_whole(plan, model.vision_model)
    blocks = [module for module in model.modules() if getattr(module, "fused_attn", False)]
    assert blocks and whole.name == "released_whole"
    torch.testing.assert_close(whole.forward(batch, no_mark), plan.forward(batch, no_mark), rtol=1e-12, atol=0)
    with explicit_attention(model.vision_model):
        assert not any(module.fused_attn for module in blocks)
    assert all(module.fused_attn for module in blocks)


def test_calls_are_recorded_and_made_again() -> None:
    query, key = torch.randn(2, 3, 4, 8, requires_grad=True), torch.randn(2, 3, 6, 8)
    mask = torch.ones(2, 1, 1, 6, dtype=torch.bool)
    mask[0, ..., 4:] = False
    with Recorder(torch.bfloat16) as recorder:
        F.scaled_dot_product_attention(query, key, key, attn_mask=mask)
        F.scaled_dot_product_attention(query, key, key, mask)
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            F.scaled_dot_product_attention(query, key, key)
    assert list(recorder.calls) == ["2x3x4x8 on 2x3x6x8 fp32, mask 2x1x1x6 bool, backward", "2x3x4x8 on 2x3x6x8 bf16"]
    first, second = recorder.calls.values()
    device = torch.device("cpu")
    for call, bound in ((first, 1e-5), (second, 0.02)):
        inputs = call.inputs(device)
        assert [tensor.shape for tensor in inputs] == [(2, 3, 4, 8), (2, 3, 6, 8), (2, 3, 6, 8)]
        result = exactness(call, inputs)
        assert result["finite"] == "yes" and result["largest error"] <= bound
    assert len(first.outcomes(first.inputs(device), dropout=False)) == 4


def test_what_is_not_finite_is_seen() -> None:
    mask = torch.full((1, 1, 2, 3), float("-inf"))
    call = Call(
        query=(1, 1, 2, 4), key=(1, 1, 3, 4), dtype=torch.float32, mask=mask + float("nan"), causal=False, dropout=0.0,
        trains=False, grouped=False,
    )  # fmt: skip
    assert exactness(call, call.inputs(torch.device("cpu")))["finite"] == "NO"


def test_each_block_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    tower, compiled = image_text_model().vision_model, []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(self))
    compile_blocks(tower)
    assert compiled == list(tower.tower.blocks)
    assert relative_error(torch.tensor([3.0, 4.4]), torch.tensor([3.0, 4.0])) == pytest.approx(0.08)
