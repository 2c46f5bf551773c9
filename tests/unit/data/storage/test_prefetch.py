"""Remote shards in the training order: few long requests, the same samples, bounded memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import pytest
from remote_reading import Read, read, write_numbered_shards
from s3_server import S3

from blip2_train.data.storage.options import StorageOptions
from blip2_train.data.storage.prefetch import FIRST, Prefetcher, Span, rounds
from blip2_train.data.stream.batch_sampler import BatchShape, GlobalBatchSampler
from blip2_train.errors import ConfigError, ShardError

SMALL = {"batch": 8, "workers": 0, "block": 16, "window": 128}


@pytest.mark.timeout(180)
@pytest.mark.slow
def test_two_readers_make_one_request_for_50_samples_of_the_default_order(tmp_path: Path, s3: S3) -> None:
    write_numbered_shards(tmp_path / "set", s3, shards=20, samples=1000)
    batch, steps = 64, 300
    list(read("s3://data/set", tmp_path / "index", 1, batch=batch, workers=0))
    indexing = s3.sent  # which reads the shards whole
    there = list(read("s3://data/set", tmp_path / "index", steps, batch=batch, workers=2))
    samples, requests = batch * steps, len(s3.requests)
    here = list(read(str(tmp_path / "set"), tmp_path / "index", steps, batch=batch, workers=0))
    assert there == here and len(set(chain.from_iterable(there))) == samples > 16384
    assert samples / requests >= 50, f"{requests} requests for {samples} samples"
    stored = sum(path.stat().st_size for path in (tmp_path / "set").iterdir())
    sent = s3.sent - indexing
    assert sent < 2.5 * stored * samples / 20_000, "each of two readers fetches each block, and little else"


@pytest.fixture
def small(tmp_path: Path, s3: S3) -> Path:
    """Four shards of 60 samples, here in `set` and there."""
    write_numbered_shards(tmp_path / "set", s3, shards=4, samples=60)
    return tmp_path


def here_and_there(folder: Path, steps: int, **options: object) -> tuple[list[list[Read]], list[list[Read]]]:
    remote = {**SMALL, **options}
    local = {name: value for name, value in remote.items() if name not in ("memory_mb", "cache", "attempts")}
    return (
        list(read(str(folder / "set"), folder / "index", steps, **local)),
        list(read("s3://data/set", folder / "index", steps, **remote)),
    )


MORE: list[dict[str, object]] = [
    {},
    {"world": 3, "rank": 1},
    {"memory_mb": 0.02},
    {"memory_mb": 0},
    {"cache": "{folder}/kept"},
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"first_step": 17}, *(pytest.param(one, marks=pytest.mark.slow) for one in MORE)],
)
def test_the_same_batches_as_on_this_machine(options: dict[str, object], small: Path, s3: S3) -> None:
    options = {name: str(value).format(folder=small) if name == "cache" else value for name, value in options.items()}
    here, there = here_and_there(small, 70, **options)  # two epochs and more
    assert here == there and len(here) == 70 - int(str(options.get("first_step", 0)))


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_the_next_sample_and_reads_nothing_before(small: Path, s3: S3) -> None:
    whole, _ = here_and_there(small, 40)
    s3.requests.clear()
    _, rest = here_and_there(small, 40, first_step=36)
    assert rest == whole[36:] and s3.gets(".tar") <= 32  # no more than a request each


@pytest.mark.slow
def test_without_memory_each_sample_is_a_request(small: Path, s3: S3) -> None:
    here_and_there(small, 30, memory_mb=0)
    assert s3.gets(".tar") >= 240
    s3.requests.clear()
    here_and_there(small, 30)
    assert s3.gets(".tar") < 100


@pytest.mark.slow
def test_failures_on_the_way_change_nothing(small: Path, s3: S3) -> None:
    s3.fault = lambda method, path, index: "500" if ".tar" in path and index % 3 == 0 else ""
    here, there = here_and_there(small, 40, attempts=4)
    assert here == there


@pytest.mark.slow
def test_a_shard_that_is_cut_gives_what_lies_before_the_cut(small: Path, s3: S3) -> None:
    here, _ = here_and_there(small, 25)
    content = (small / "set" / "00002.tar").read_bytes()
    s3.fault = lambda *_: ""
    batches = read("s3://data/set", small / "index", 25, **SMALL)
    first = next(batches)
    s3.put("set/00002.tar", content[: len(content) // 2])
    there = [first, *batches]
    kept = {one for one in chain.from_iterable(here) if not one[0].startswith("00002/")}
    replaced = {one for one in chain.from_iterable(here) if one[0].startswith("00002/0002000")}
    assert kept <= set(chain.from_iterable(there)) and replaced & set(chain.from_iterable(there))


def test_what_a_reader_makes_next_follows_from_its_first_position() -> None:
    for accumulate, world, rank in ((1, 1, 0), (2, 1, 0), (2, 3, 1)):
        shape = BatchShape(global_batch_size=12, world_size=world, accumulate=accumulate)
        sampler = GlobalBatchSampler(shape, rank, 20)
        batches = list(sampler)
        assert len(batches) == 20 * accumulate
        for index in (0, 5, len(batches) - 1):
            assert list(sampler.following(batches[index][0], every=3)) == batches[index::3]
        assert list(GlobalBatchSampler(shape, rank, 20, first_step=4)) == batches[4 * accumulate :]


class Store:
    """Bytes to be fetched, which knows how much is under way."""

    def __init__(self) -> None:
        self.lock, self.fetched = threading.Lock(), list[Span]()
        self.fails: set[int] = set()

    def fetch(self, span: Span) -> bytes:
        time.sleep(0.001)
        with self.lock:
            self.fetched.append(span)
        if span.shard in self.fails:
            raise OSError("no answer")
        return content(span)


def content(span: Span) -> bytes:
    return bytes((span.shard + folder // 100) % 251 for folder in range(span.start, span.end))


def scattered(samples: int, shards: int = 8, every: int = 3) -> Iterator[Sequence[Span]]:
    """Passages of every third sample of 100 bytes of each shard, in turn."""
    for passage in range(3):
        first = passage * samples * every * 100
        yield [
            Span(shard, first + folder * every * 100, first + folder * every * 100 + 100)
            for folder in range(samples)
            for shard in range(shards)
        ]


def test_memory_is_bounded_with_what_is_under_way() -> None:
    store, most, memory = Store(), 0, 60_000
    ahead = Prefetcher(store.fetch, scattered(100), memory)
    for span in chain.from_iterable(scattered(100)):
        assert ahead.take(span) == content(span)
        most = max(most, ahead._used)
    assert memory / 2 < most <= memory + memory // 4
    assert ahead._used == 0 and not any(ahead._rounds) and not ahead._waiting
    assert len(store.fetched) < 2400 / 4
    ahead.close()


def test_a_request_brings_no_more_for_nothing_than_it_saves() -> None:
    """Every second sample of a block is fetched with the block, every ninth alone."""
    for every, together in ((1, True), (2, True), (5, True), (9, False)):
        *_, requests = rounds([next(scattered(400, shards=1, every=every))], 10**8)
        assert len(requests) == (1 if together else 400 - FIRST)


def test_samples_that_are_passed_over_are_let_go() -> None:
    store = Store()
    ahead = Prefetcher(store.fetch, scattered(40), 50_000)
    expected = [*chain.from_iterable(scattered(40))]
    for span in expected[::5]:
        assert ahead.take(span) == content(span)
    assert ahead.take(Span(0, 1, 2)) is None and ahead.take(expected[-1]) in (None, content(expected[-1]))
    assert ahead._used <= 50_000
    ahead.close()


def test_samples_of_a_failed_request_are_requested_alone() -> None:
    store = Store()
    store.fails = {3}
    ahead = Prefetcher(store.fetch, scattered(20), 50_000)
    for span in chain.from_iterable(scattered(20)):
        assert ahead.take(span) == (None if span.shard == 3 else content(span))
    assert ahead._used == 0


def test_a_storage_that_was_given_up_ends_the_reading() -> None:
    def fetch(_: Span) -> bytes:
        raise ShardError("given up")

    ahead = Prefetcher(fetch, scattered(20), 50_000)
    with pytest.raises(ShardError, match="given up"):
        ahead.take(next(scattered(20))[0])


def test_memory_below_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data.storage.memory_mb must be 0 or more, got -1"):
        StorageOptions(memory_mb=-1)
