"""Only chosen rows travel between processes, and the step stays that of one process: losses, statistics, gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from negative_exchange_work import CASES, SIZE, exchanged, work
from processes import run_processes

WORLDS = (2, 3, 4)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    return run_processes(WORLDS, work, tmp_path_factory.mktemp("exchange"))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: "-".join(CASES[number]))
def test_a_step_equals_that_of_one_process(results: dict[int, list[dict[str, Any]]], number: int) -> None:
    expected = exchanged(*CASES[number])
    largest = max(gradient.abs().max() for gradient in expected["gradients"].values())
    for world in WORLDS:
        for actual in (of_rank["steps"][number] for of_rank in results[world]):
            assert actual["losses"] == pytest.approx(expected["losses"], rel=1e-12)
            assert actual["stats"] == pytest.approx(expected["stats"], rel=1e-6)
            assert actual["gradients"].keys() == expected["gradients"].keys()
            for name, gradient in expected["gradients"].items():
                bound = 1e-12 * max(gradient.abs().max(), 1e-3 * largest)
                assert (actual["gradients"][name] - gradient).abs().max() <= bound, (world, name)


@pytest.mark.parametrize("world", WORLDS)
def test_no_process_receives_more_than_its_own_rows_come_to(
    results: dict[int, list[dict[str, Any]]], world: int
) -> None:
    """Those of a trained tower come back as gradients of what was sent."""
    received = {case: [of_rank["steps"][i]["received"] for of_rank in results[world]] for i, case in enumerate(CASES)}
    assert all(0 < share <= 1.1 for (tower, _), shares in received.items() if tower == "frozen" for share in shares)
    assert max(received["frozen", "own"]) < 0.1, "an image that is here already must not travel"
    assert max(received["trained", "sampled"]) <= 2.2


def test_rows_come_in_the_requested_order_with_their_gradient(results: dict[int, list[dict[str, Any]]]) -> None:
    for world in WORLDS:
        first, last = results[world][0]["rows"], results[world][-1]["rows"]
        assert first["rows"][:, 0].tolist() == [1, 10 * (world - 1) + 2, 1, 0]
        assert last["rows"][:, 0].tolist() == [1, 2]
        weight = 100.0 ** (world - 1)
        assert first["gradient"][:, 0].tolist() == [1, 2 + weight, weight]
        assert last["gradient"][:, 0].tolist() == [0, 0, 1]
        assert [tensor.dtype for tensor in first["others"]] == [torch.bfloat16, torch.float16, torch.bool]
        assert all(torch.equal(tensor, first["rows"].to(tensor.dtype)) for tensor in first["others"])


def test_every_number_of_processes_has_equal_shares() -> None:
    assert all(SIZE % world == 0 for world in WORLDS)
