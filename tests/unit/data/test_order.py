import itertools

import numpy as np
import pytest

from blip2_train.data.order import SampleOrder, permutation, stable_seed
from blip2_train.errors import ConfigError


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 100, 1000, 1001])
@pytest.mark.parametrize("block", [1, 2, 10, 256])
@pytest.mark.parametrize("window", [1, 3, 50, 4096])
def test_every_sample_once_per_epoch(size: int, block: int, window: int) -> None:
    order = SampleOrder(size=size, seed=3, block=block, window=window)
    for epoch in (0, 1):
        assert sorted(order.sample_at(epoch, index) for index in range(size)) == list(range(size))


def _epoch(order: SampleOrder, epoch: int) -> list[int]:
    return [order.sample_at(epoch, index) for index in range(order.size)]


def test_epochs_seeds_and_sources_differ_and_repeat() -> None:
    order = SampleOrder(size=500, seed=3, name="a", block=16, window=64)
    orders = [
        _epoch(order, 0),
        _epoch(order, 1),
        _epoch(SampleOrder(size=500, seed=4, name="a", block=16, window=64), 0),
        _epoch(SampleOrder(size=500, seed=3, name="b", block=16, window=64), 0),
    ]
    for one, other in itertools.combinations(orders, 2):
        assert sum(x == y for x, y in zip(one, other, strict=True)) < 20  # 1 place in 500 agrees by chance
    permutation.cache_clear()
    assert _epoch(order, 0) == orders[0]


def test_a_source_of_one_block_is_shuffled_anew_each_epoch() -> None:
    order = SampleOrder(size=50, seed=0, block=256, window=1000)
    assert len({tuple(_epoch(order, epoch)) for epoch in range(5)}) == 5


def test_a_source_below_the_window_is_shuffled_uniformly() -> None:
    positions = np.zeros((6, 6))
    for seed in range(3000):
        order = SampleOrder(size=6, seed=seed, block=2, window=100)
        for index in range(6):
            positions[index, order.sample_at(0, index)] += 1
    assert np.abs(positions / 3000 - 1 / 6).max() < 4 * (1 / 6 * 5 / 6 / 3000) ** 0.5


def test_a_window_reads_few_blocks() -> None:
    order = SampleOrder(size=100_000, seed=0, block=100, window=1000)
    blocks = {order.sample_at(0, index) // 100 for index in range(1000)}
    assert 10 <= len(blocks) <= 11
    assert max(blocks) - min(blocks) > 300


def test_the_papers_size_needs_little_memory() -> None:
    order = SampleOrder(size=129_000_000, seed=0, block=1000, window=16384)
    permutation.cache_clear()
    for index in (0, 1, 77_777_777, 128_999_999):
        assert 0 <= order.sample_at(2, index) < 129_000_000
    blocks = permutation(129_000, "blocks", 0, "", 2)
    assert blocks.nbytes < 2_000_000


def test_seed_is_stable_between_runs() -> None:
    assert stable_seed("sample", 1, 2) == 5849436932861652063
    assert list(permutation(8, "x", 1)) == list(permutation(8, "x", 1))


@pytest.mark.parametrize("wrong", [{"size": 0}, {"block": 0}, {"window": -1}])
def test_impossible_sizes_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SampleOrder(**({"size": 5, "seed": 0} | wrong))


def test_an_index_outside_is_refused() -> None:
    with pytest.raises(IndexError):
        SampleOrder(size=5, seed=0).sample_at(0, 5)
