import math

import pytest
import torch

from blip2_train.objectives import matching


def draw(logits: torch.Tensor, forbidden: torch.Tensor, count: int, variant: str = "masked") -> torch.Tensor:
    uniforms = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    rows = logits.expand(count, -1)
    columns, usable = matching.sample_hard_negatives(rows, forbidden.expand(count, -1), uniforms, variant)  # type: ignore[arg-type]
    assert usable.all()
    return torch.bincount(columns, minlength=logits.shape[1]) / count


def test_draws_follow_the_softmax_without_the_forbidden_columns() -> None:
    logits, forbidden = torch.tensor([[9.0, 0.0, 1.0]]), torch.tensor([[True, False, False]])
    expected = torch.tensor([0.0, 1 / (1 + math.e), math.e / (1 + math.e)])
    torch.testing.assert_close(draw(logits, forbidden, 10_000), expected, atol=2e-4, rtol=0)


def test_the_floor_keeps_every_other_column_possible() -> None:
    logits, forbidden = torch.tensor([[200.0, 0.0, -50.0]]), torch.tensor([[True, False, False]])
    torch.testing.assert_close(draw(logits, forbidden, 1000, "floor"), torch.tensor([0.0, 0.5, 0.5]), atol=1e-3, rtol=0)
    assert draw(logits, forbidden, 1000)[2] == 0


def test_uniform_negatives_do_not_depend_on_similarity() -> None:
    logits, forbidden = torch.tensor([[9.0, 200.0, -50.0]]), torch.tensor([[True, False, False]])
    assert draw(logits, forbidden, 1000, "uniform").tolist() == [0.0, 0.5, 0.5]


@pytest.mark.parametrize("variant", ["masked", "floor", "uniform"])
def test_a_positive_is_never_drawn(variant: matching.NegativeSampling) -> None:
    torch.manual_seed(0)
    logits = 1000 * torch.randn(200, 7)
    forbidden = torch.rand(200, 7) < 0.6
    for value in (0.0, 0.3, 1 - 2.0**-53):
        uniforms = torch.full((200,), value, dtype=torch.float64)
        columns, usable = matching.sample_hard_negatives(logits, forbidden, uniforms, variant)
        assert torch.equal(usable, ~forbidden.all(dim=1))
        assert not forbidden[torch.arange(200), columns][usable].any()
        assert (columns >= 0).all() and (columns < 7).all()


def test_rows_without_any_negative_are_reported() -> None:
    columns, usable = matching.sample_hard_negatives(
        torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), torch.tensor([0.5], dtype=torch.float64)
    )
    assert usable.tolist() == [False] and columns.tolist() == [0]


def test_chance_is_the_loss_of_the_best_constant() -> None:
    labels = matching.matching_labels(4, 8, torch.device("cpu"))
    logits = torch.tensor([2 / 3, 1 / 3]).log().expand(12, 2)
    loss = matching.matching_loss(logits, labels, torch.ones(12), torch.tensor(12.0))
    assert loss.item() == pytest.approx(matching.CHANCE, abs=1e-4)
