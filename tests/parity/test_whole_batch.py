"""Two passes over micro-batches equal one piece: losses and gradients, on one to three processes, with dropout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from processes import run_processes
from reference_cases import RULES, assert_equal, double_model, global_batch, reference
from tiny import image_text_model
from whole_batch_work import compared, parts_of, trained_tower, two_passes, undivided, work

from blip2_train.objectives.representation import RepresentationObjective


@pytest.mark.slow
@pytest.mark.parametrize("rules", RULES, ids=lambda rules: "-".join(str(value) for value in rules.values()))
@pytest.mark.parametrize(
    ("size", "images", "parts"), [(6, "distinct", 3), (8, "repeated", 2), (4, "one", 2), (3, "distinct", 3)]
)
def test_one_process_equals_the_plain_reference(rules: dict[str, Any], size: int, images: str, parts: int) -> None:
    case = (rules, size, images)
    assert_equal(compared(case, parts), reference(case))


@pytest.mark.slow
def test_several_processes_equal_the_plain_reference(tmp_path: Path) -> None:
    shapes = {2: [(8, "repeated", 2), (12, "distinct", 3), (4, "one", 2)], 3: [(12, "distinct", 2)]}
    cases = {
        world: [((rules, *shape), parts) for rules in RULES for *shape, parts in of_world]
        for world, of_world in shapes.items()
    }
    results = run_processes((2, 3), work, tmp_path, cases)
    for world, of_world in cases.items():
        for number, (case, _) in enumerate(of_world):
            expected = reference(case)
            for of_rank in results[world]:
                assert_equal(of_rank["frozen"][number], expected)
        for number, gather in enumerate(("detached", "full")):
            expected = compared(({"gather": gather}, 12, "repeated"), 1, trained_tower)
            assert any("vision_model" in name for name in expected[1])
            for of_rank in results[world]:
                assert_equal(of_rank["trained"][number], expected)


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("gather", ["detached", "full"])
def test_dropout_is_the_same_in_both_passes(gather: str, frozen: bool) -> None:
    """Against one graph over all micro-batches, whose dropout follows the same random states."""
    drop = {"overrides": {"patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2, "drop_path_rate": 0.5}}
    models = [
        image_text_model(vision={"frozen": frozen, **drop}, dropout=0.2, attention_dropout=0.1).double().train()
        for _ in range(3)
    ]
    objective = RepresentationObjective(gather=gather, mask_same_image=True)  # type: ignore[arg-type]
    batches = parts_of(global_batch(8, "repeated"), 4)
    actual, expected = two_passes(models[0], objective, batches), undivided(models[1], objective, batches)
    assert_equal(actual, expected)
    without = two_passes(models[2].eval(), objective, batches)
    assert abs(without[0]["itc"] - expected[0]["itc"]) > 1e-3, "dropout changes nothing here"


def test_autocast_loses_no_gradient() -> None:
    """Weights that the first pass casts without gradient must not serve the second."""
    models = [image_text_model().train() for _ in range(2)]
    objective = RepresentationObjective()
    batch = global_batch(8, "distinct")
    batch.pixel_values = batch.pixel_values.float()
    batches = parts_of(batch, 4)
    with torch.autocast("cpu", torch.bfloat16):
        actual, expected = two_passes(models[0], objective, batches), undivided(models[1], objective, batches)
    assert_equal(actual, expected, tolerance=3e-2)


def test_what_is_kept_follows_the_micro_batch() -> None:
    """What autograd keeps in a second pass, beside a step of a micro-batch alone, and one of the whole in one piece."""

    def kept(run: Any) -> int:
        storages: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            held = run()
        del held
        return sum(storages.values())

    model, objective = double_model(), RepresentationObjective()
    batches = parts_of(global_batch(16, "distinct"), 8)
    generator = torch.Generator().manual_seed(0)
    weights = sum(p.numel() * 8 for p in model.parameters() if p.requires_grad)
    whole = objective.first_pass(model, batches, generator, lambda index: None)
    part = kept(lambda: objective.second_pass(model, batches[0], whole, 0).total)
    alone = kept(lambda: objective(model, batches[0], generator).total)
    in_all = kept(lambda: objective(model, global_batch(16, "distinct"), generator).total)
    features = whole.patch_features
    assert features is not None
    assert part - weights <= 1.2 * (alone - weights) + features.nbytes
    assert part - weights < 0.4 * (in_all - weights)
