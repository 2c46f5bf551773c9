from collections import Counter

import pytest

from blip2_train.config.compose import compose
from blip2_train.data.stream.mixture import BLOCK, Mixture
from blip2_train.errors import ConfigError


@pytest.mark.parametrize("weights", [[1.0], [1, 1], [1, 2, 3], [0.7, 0.299, 0.001], [129e6, 5, 113e3, 4]])
def test_each_source_counts_up_without_gaps(weights: list[float]) -> None:
    mixture = Mixture(weights, seed=1)
    served: dict[int, list[int]] = {source: [] for source in range(len(weights))}
    for position in range(6 * BLOCK):
        source, index = mixture.source_at(position)
        served[source].append(index)
    for source, indices in served.items():
        assert sorted(indices) == list(range(len(indices)))
        expected = weights[source] / sum(weights) * 6 * BLOCK
        assert abs(len(indices) - expected) <= 1, "counts are exact at the ends of blocks"
    assert mixture.served(6 * BLOCK) == [len(indices) for indices in served.values()]


def test_ten_thousand_draws_lie_within_three_sigma() -> None:
    weights = [0.5, 0.3, 0.15, 0.05]
    mixture = Mixture(weights, seed=9)
    counts = Counter(mixture.source_at(position)[0] for position in range(123_456, 133_456))
    for source, weight in enumerate(weights):
        assert abs(counts[source] - 10_000 * weight) < 3 * (10_000 * weight * (1 - weight)) ** 0.5


@pytest.mark.slow
def test_the_papers_sets_are_mixed_by_their_sizes() -> None:
    sizes = {"coco": 113e3, "visual_genome": 100e3, "sbu": 860e3, "cc3m": 3e6, "cc12m": 10e6, "laion": 115e6}
    sources = compose(["experiment=stage1_vit_g"]).data.sources
    assert [source.path.rpartition("/")[2] for source in sources] == list(sizes)
    mixture, first, draws = Mixture([source.weight for source in sources], seed=4), 200_000_321, 100_000
    counts = Counter(mixture.source_at(position)[0] for position in range(first, first + draws))
    for source, size in enumerate(sizes.values()):
        share = size / sum(sizes.values())
        assert mixture.shares[source] == pytest.approx(share)
        assert abs(counts[source] - draws * share) < 3 * (draws * share * (1 - share)) ** 0.5


@pytest.mark.parametrize("positions", [0, 1, 700, BLOCK, 3 * BLOCK + 123])
def test_what_was_served_is_counted_exactly(positions: int) -> None:
    mixture = Mixture([3, 1, 2], seed=7)
    counts = Counter(mixture.source_at(position)[0] for position in range(positions))
    assert mixture.served(positions) == [counts[source] for source in range(3)]


def test_sources_are_mixed_inside_a_block() -> None:
    mixture = Mixture([1, 1], seed=2)
    sources = [mixture.source_at(position)[0] for position in range(BLOCK)]
    changes = sum(a != b for a, b in zip(sources, sources[1:], strict=False))
    assert abs(changes - BLOCK / 2) < 4 * (BLOCK / 4) ** 0.5


def test_random_access_equals_reading_on() -> None:
    mixture = Mixture([3, 1, 2], seed=5)
    forwards = [mixture.source_at(position) for position in range(3000)]
    fresh = Mixture([3, 1, 2], seed=5)
    assert [fresh.source_at(position) for position in reversed(range(3000))] == forwards[::-1]


def test_exact_far_into_a_run() -> None:
    position = 250_000 * 1680
    counts = Mixture([115e6, 14e6, 113e3], seed=0).served(position)
    assert sum(counts) == position
    assert counts[2] == pytest.approx(position * 113e3 / 129.113e6, abs=1)


@pytest.mark.parametrize("weights", [[], [0, 1], [-1, 2], [float("nan")], [float("inf"), 1]])
def test_impossible_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(ConfigError):
        Mixture(weights, seed=0)
