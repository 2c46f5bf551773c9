"""What a visit measures: the released plan with its own attention, and the calls of attention that passes make."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from benchmark.loader.options import LoaderOptions
from benchmark.loader.photographs import write_photographs
from benchmark.loader.reading import open_data
from benchmark.plans import Plan
from gpu_visit import towers
from gpu_visit.attention import exactness
from gpu_visit.attention_calls import Call, Recorder
from gpu_visit.loader import use_on
from gpu_visit.stage1 import explicit_attention, released_whole
from gpu_visit.towers import compile_blocks, in_8_bits, of_tower, relative_error
from plain import PlainReference, no_mark
from tiny import image_text_batch, image_text_model
from torch.nn import functional as F

from blip2_train.data.batches.transforms import FAST
from blip2_train.data.sources.config import SourceConfig
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


def test_the_tower_in_8_bits_is_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    tower, quantized = image_text_model().vision_model, []
    monkeypatch.setattr(towers, "quantize_tower", lambda other, quantization: quantized.append((other, quantization)))
    other = in_8_bits(tower, "int8")
    assert quantized == [(other, "int8")] and other is not tower
    batch, marks = image_text_batch(), []
    plan = of_tower(Plan(name="tower", about="", forward=lambda *_: None), "int8", other)
    assert plan.forward(batch, marks.append) is None and plan.name == "int8" and marks == ["vision"]


@pytest.mark.parametrize(("device", "dtype"), [("cuda", torch.uint8), ("cpu", torch.float32)])
def test_batches_come_as_in_a_run(tmp_path: Path, device: str, dtype: torch.dtype) -> None:
    """On a GPU as levels, which are normalised there; else normalised by the reader."""
    write_photographs(tmp_path / "photographs.tar", (64, 48), 4)
    source = SourceConfig(path=str(tmp_path), name="photographs")
    settings = LoaderOptions(images=4, image_size=16, batch_size=4)
    data = open_data(source, settings, 2, decoder=FAST)
    use_on(data, torch.device(device))
    loader = data.train_dataloader()
    loader.pin_memory = False  # which needs a GPU
    batch = next(iter(loader))
    assert batch.pixel_values.dtype == dtype
    assert data.on_after_batch_transfer(batch, 0).pixel_values.dtype == torch.float32
