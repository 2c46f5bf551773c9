"""What the processes of a step exchange: gradients in place, and one flag by the network that the gradients take."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from exchange_work import run, work
from processes import run_processes


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_processes((2,), work, tmp_path_factory.mktemp("two"))[2]


@pytest.mark.slow
def test_gradients_lie_in_the_buffers_of_data_parallelism(two: list[dict[str, Any]]) -> None:
    """From the first exchange on, also while the first micro-batch of a step is added up."""
    alone = run()["storages"]
    assert all(2 * storages > gradients for storages, gradients in alone), "one process has no such buffers"
    for process in two:
        first, *others = process["run"]["storages"]
        assert first == alone[0] and len(others) == len(alone) - 1
        assert all(storages <= 2 < gradients for storages, gradients in others), others


def test_they_train_as_one_process_does(two: list[dict[str, Any]]) -> None:
    expected = run()
    for process in two:
        assert process["run"]["losses"] == pytest.approx(expected["losses"], rel=1e-10)
    for name, weight in two[0]["run"]["weights"].items():
        torch.testing.assert_close(weight, expected["weights"][name], rtol=1e-9, atol=1e-12)


def test_compiled_passes_exchange_the_same(two: list[dict[str, Any]]) -> None:
    for process in two:
        assert process["compiled"]["losses"] == process["run"]["losses"]
        assert process["compiled"]["storages"] == process["run"]["storages"]
    for name, weight in two[0]["run"]["weights"].items():
        assert torch.equal(two[0]["compiled"]["weights"][name], weight), name


def test_a_flag_of_any_process_reaches_all(two: list[dict[str, Any]]) -> None:
    assert [process["flags"] for process in two] == [[False, True, True]] * 2
