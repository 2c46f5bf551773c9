import dataclasses
from pathlib import Path

import pytest
import torch
from processes import run_processes
from same_image import ROWS, pairs_by_rule
from tiny import image_text_batch, image_text_model

from blip2_train.errors import ConfigError
from blip2_train.objectives.representation import RepresentationObjective


def test_weights_scale_the_sum() -> None:
    model, batch = image_text_model().eval(), image_text_batch()
    output = RepresentationObjective(itc_weight=2.0, itm_weight=0.0, itg_weight=0.5)(model, batch, torch.Generator())
    torch.testing.assert_close(output.total, 2 * output.terms["itc"] + 0.5 * output.terms["itg"])


@pytest.mark.parametrize("gather", ["detached", "full"])
def test_a_batch_of_one_has_no_matching_negatives(gather: str) -> None:
    model = image_text_model().eval()
    output = RepresentationObjective(gather=gather)(model, image_text_batch(1), torch.Generator())  # type: ignore[arg-type]
    assert output.stats["itm_share_without_negative"] == 1
    assert torch.isfinite(output.total)
    assert output.terms["itc"] == 0


def test_a_batch_of_one_image_uses_no_positive_as_negative() -> None:
    model = image_text_model().eval()
    batch = dataclasses.replace(image_text_batch(4), image_ids=torch.zeros(4, dtype=torch.int64))
    output = RepresentationObjective(mask_same_image=True)(model, batch, torch.Generator())
    assert output.stats["itm_share_without_negative"] == 1
    output.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_repeated_images_matter_only_behind_the_flag() -> None:
    model, batch = image_text_model().eval(), image_text_batch()
    repeated = dataclasses.replace(batch, image_ids=torch.zeros(5, dtype=torch.int64))
    for flag, equal in ((False, True), (True, False)):
        objective = RepresentationObjective(mask_same_image=flag)
        a, b = (objective(model, x, torch.Generator()).terms["itc"] for x in (batch, repeated))
        assert torch.equal(a, b) == equal


@pytest.mark.slow
def test_pairs_of_one_image_are_never_negatives(tmp_path: Path) -> None:
    """Over 300 random batches on one process and on two, whose batches share images."""
    two = run_processes((2,), pairs_by_rule, tmp_path)[2]
    for actual in (pairs_by_rule(), *two):
        for rule in ("masked", "floor", "uniform"):
            same, other = actual[rule]
            assert same == 0 and other > 300 * ROWS
        assert actual["no mask"][0] > 0, "without the mask there would be such pairs"


@pytest.mark.parametrize(
    "wrong",
    [{"gather": "some"}, {"contrast": "some"}, {"negatives": "soft"}, {"label_smoothing": 1.0}, {"itm_weight": -1.0}],
)
def test_unknown_choices_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        RepresentationObjective(**wrong)  # type: ignore[arg-type]


def test_golden_losses() -> None:
    """A refactor must not move these; they were first printed by this code once the parity tests passed."""
    output = RepresentationObjective()(
        image_text_model().eval().double(), _double(image_text_batch()), torch.Generator().manual_seed(1)
    )
    golden = {"itc": GOLDEN[0], "itm": GOLDEN[1], "itg": GOLDEN[2]}
    assert {name: value.item() for name, value in output.terms.items()} == pytest.approx(golden, rel=1e-6)


GOLDEN = (1.4948042143699345, 1.4988039318830597, 4.37056201990365)


def _double(batch):  # type: ignore[no-untyped-def]
    return dataclasses.replace(batch, pixel_values=batch.pixel_values.double())


def test_a_term_of_weight_zero_leaves_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it had never been computed: the ablation without ITG is one."""

    def gradients() -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = image_text_model().eval()
        objective = RepresentationObjective(itg_weight=0.0)
        objective(model, image_text_batch(), torch.Generator()).total.backward()
        return {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}

    weighted = gradients()
    monkeypatch.setattr(RepresentationObjective, "_generate", lambda *_: torch.zeros(()))
    never = gradients()
    assert any(gradient.any() for gradient in never.values())
    assert all(torch.equal(weighted[name], never[name]) for name in never)
