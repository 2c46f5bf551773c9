"""The step equals the plain reference, in losses and gradients, on one, two and three processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from plain import PlainReference
from processes import run_processes
from reference_cases import RULES, assert_equal, double_model, global_batch, reference, step, steps
from slow_losses import loop_losses
from torch import nn

from blip2_train.objectives.representation import RepresentationObjective


def every_trainable(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("rules", RULES, ids=lambda rules: "-".join(str(value) for value in rules.values()))
@pytest.mark.parametrize(
    ("size", "images"), [(5, "distinct"), (6, "repeated"), (4, "one"), (1, "distinct"), (2, "one")]
)
def test_one_process(rules: dict[str, Any], size: int, images: str) -> None:
    expected = reference((rules, size, images))
    assert expected[1].keys() == every_trainable(double_model())
    assert_equal(step((rules, size, images)), expected)


@pytest.mark.slow
def test_several_processes(tmp_path: Path) -> None:
    shapes = {2: [(4, "repeated"), (2, "distinct"), (4, "one")], 3: [(6, "repeated"), (3, "distinct")]}
    cases = {world: [(rules, *shape) for rules in RULES for shape in of_world] for world, of_world in shapes.items()}
    results = run_processes((2, 3), steps, tmp_path, cases)
    for world, of_world in cases.items():
        for number, case in enumerate(of_world):
            expected = reference(case)
            for of_rank in results[world]:
                assert_equal(of_rank[number], expected)


@pytest.mark.parametrize("options", [{"reuse_queries": True}, {"fused": True}])
def test_variants_of_the_reference_agree(options: dict[str, bool]) -> None:
    case = ({"gather": "full"}, 5, "repeated")
    assert_equal(reference(case, **options), reference(case))


def test_the_reference_sums_its_own_losses_as_the_loops_do() -> None:
    model, objective = double_model(), RepresentationObjective(itc_weight=2.0, itg_weight=0.5)
    batch, uniforms = global_batch(4, "distinct"), torch.full((2, 4), 0.3, dtype=torch.float64)
    plain = PlainReference(model, objective)
    losses = loop_losses(plain.logits(batch, uniforms), list(range(4)), objective.label_smoothing)
    expected = 2 * losses["itc"] + losses["itm"] + 0.5 * losses["itg"]
    torch.testing.assert_close(plain(batch, uniforms), expected, rtol=1e-12, atol=0)


def test_the_reference_draws_no_positive_and_follows_the_weights() -> None:
    plain = PlainReference(double_model(), RepresentationObjective())
    logits, forbidden = torch.tensor([[0.0, 0.0, 9.0]]).log_softmax(dim=1), torch.tensor([[False, False, True]])
    drawn = [plain._negatives(logits, forbidden, torch.tensor([u]))[0] for u in (0.0, 0.49, 0.51, 0.999)]
    assert drawn == [0, 0, 1, 1]
    assert plain._negatives(logits, torch.ones_like(forbidden), torch.tensor([0.5])) == [None]
