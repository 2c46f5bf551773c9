"""Two processes of batch B are one process of batch 2B: losses, gradients, statistics and held-out scores."""

from __future__ import annotations

import pytest
from processes import run_processes
from torch import Tensor
from two_process_work import GATHERS, SHARES, held_out_scores, one_step, work

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    return run_processes((2,), work, tmp_path_factory.mktemp("two"))[2]


@pytest.mark.parametrize("step", [*GATHERS, "checkpointed"])
def test_a_step(two: list[dict], step: str) -> None:
    expected = one_step("full" if step == "checkpointed" else step)
    assert all(0 < expected["stats"][name] < 1 for name in expected["stats"] if "accuracy" in name)
    for actual in (of_rank["steps"].get(step, of_rank["checkpointed"]) for of_rank in two):
        assert actual["losses"] == pytest.approx(expected["losses"], rel=TOLERANCE)
        assert actual["stats"] == pytest.approx(expected["stats"], rel=TOLERANCE)
        assert actual["gradients"].keys() == expected["gradients"].keys()
        largest = max(gradient.abs().max() for gradient in expected["gradients"].values())
        for name, gradient in expected["gradients"].items():
            bound = TOLERANCE * max(gradient.abs().max(), 1e-2 * largest)
            assert (actual["gradients"][name] - gradient).abs().max() <= bound, name


def test_the_gather_rules_differ(two: list[dict]) -> None:
    """Otherwise the test above could not tell them apart."""
    first, second = (two[0]["steps"][gather]["gradients"]["text_projection.weight"] for gather in GATHERS)
    assert (first - second).abs().max() > 1e-2 * first.abs().max()


def test_held_out_scores(two: list[dict]) -> None:
    expected = held_out_scores()
    assert expected["pairs"] == sum(map(sum, SHARES))
    assert 0 < expected["itm_accuracy_match"] < 100
    assert 0 < expected["itm_accuracy_mismatch"] < 100
    for of_rank in two:
        assert of_rank["scores"] == pytest.approx(expected, rel=TOLERANCE)


def test_a_row_of_another_process_reaches_its_owner(two: list[dict]) -> None:
    """`gather_rows_with_gradient` adds up what every process asks of a row."""
    gathered: list[Tensor] = [of_rank["gathered"] for of_rank in two]
    assert gathered[0].tolist() == [[1.0 + 10.0], [2.0 + 20.0]]
    assert gathered[1].tolist() == [[3.0 + 30.0], [4.0 + 40.0]]
