"""Thousands of shards: few files open, little sent to readers, and an index that mends itself."""

from __future__ import annotations

import os
import pickle
import random
from pathlib import Path

import pytest
from open_file_limit import open_files_at_most
from shard_files import write_many_shards, write_shards

from blip2_train.data.shards.open_files import LIMIT
from blip2_train.data.sources.shard_source import ShardSource
from blip2_train.errors import ShardError

SHARDS = 2000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,000 shards of two samples, and their index."""
    root = tmp_path_factory.mktemp("many")
    write_many_shards(root / "shards", SHARDS)
    ShardSource(str(root / "shards"), "s", root / "index")
    return root


def opened(folder: Path) -> ShardSource:
    return ShardSource(str(folder / "shards"), "s", folder / "index")


def in_use() -> tuple[int, int]:
    """File descriptors and memory mappings of this process."""
    return len(os.listdir("/proc/self/fd")), len(Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.slow
def test_2000_shards_in_random_order_take_64_descriptors_and_no_mappings(folder: Path) -> None:
    sources = opened(folder), opened(folder)  # what a process reads of several sources counts together
    order = random.Random(0).sample(range(2 * SHARDS), 2 * SHARDS)
    sources[0].read(0)
    descriptors, mappings = in_use()
    most = [0, 0]
    for root, index in enumerate(order):
        record = sources[root % 2].read(index)
        assert record.captions == (f"{'ab'[index % 2]} {'abcd'[index // 2 % 4]}",)
        if root % 50 == 0:
            most = [max(pair) for pair in zip(most, in_use(), strict=True)]
    assert LIMIT / 2 < most[0] - descriptors < LIMIT == 64
    assert most[1] - mappings < 20  # the interpreter's own memory


@pytest.mark.slow
def test_a_process_at_its_file_limit_is_one_line(folder: Path) -> None:
    source = opened(folder)
    source.read(0)
    with open_files_at_most(3), pytest.raises(ShardError, match=r"files open as it may \(3\); raise the limit"):
        source.read(2)
    assert source.read(2).captions


@pytest.mark.slow
def test_a_limit_that_is_nearly_reached_closes_what_is_kept(folder: Path) -> None:
    source = opened(folder)
    for index in range(0, 2 * LIMIT, 2):
        source.read(index)
    with open_files_at_most(len(os.listdir("/proc/self/fd")) - LIMIT // 2):
        assert all(source.read(index).captions for index in range(500, 700))


@pytest.mark.slow
def test_a_reader_is_sent_the_path_of_the_catalog(folder: Path) -> None:
    source = opened(folder)
    for index in range(0, 2 * SHARDS, 20):
        source.read(index)  # which keeps a block of rows
    sent = pickle.dumps(source)
    assert len(sent) < 2000
    arrived: ShardSource = pickle.loads(sent)
    for index in (0, 1, 2 * SHARDS - 1):
        assert arrived.read(index) == source.read(index) and arrived.sample_location(index) == source.sample_location(
            index
        )
    assert arrived.fingerprint() == source.fingerprint()


def test_opening_again_looks_at_each_shard_and_reads_one_list(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object) -> None:
        raise AssertionError("each shard's own index was asked for")

    monkeypatch.setattr("blip2_train.data.shards.index.index_shards", nothing)
    assert len(opened(folder)) == 2 * SHARDS


@pytest.mark.parametrize("damage", ["list", "rows", "rows cut", "rows of another shard", "about"])
def test_a_damaged_index_is_made_again(damage: str, tmp_path: Path) -> None:
    write_shards(tmp_path / "data", (3, 4))
    before = ShardSource(str(tmp_path / "data"), "s", tmp_path / "index")
    expected = [before.read(index) for index in range(7)]
    (listed,) = (tmp_path / "index").glob("*.shards.npy")
    rows = [path for path in (tmp_path / "index").glob("*.npy") if path != listed]
    if damage == "list":
        content = bytearray(listed.read_bytes())
        content[-40] ^= 1
        listed.write_bytes(content)
    elif damage == "rows":
        rows[0].unlink()
    elif damage == "rows cut":
        rows[0].write_bytes(rows[0].read_bytes()[:150])
        rows[1].write_bytes(rows[1].read_bytes()[:-9])
    elif damage == "rows of another shard":
        rows[0].write_bytes(rows[1].read_bytes())
    else:
        listed.with_suffix(".json").write_text('{"checksum": 1')
    again = ShardSource(str(tmp_path / "data"), "s", tmp_path / "index")
    assert [again.read(index) for index in range(7)] == expected


def test_a_shard_that_was_replaced_while_its_index_was_lost_is_reported(tmp_path: Path) -> None:
    write_shards(tmp_path / "data", (3, 4))
    source = ShardSource(str(tmp_path / "data"), "s", tmp_path / "index")
    for path in (tmp_path / "index").glob("*.npy"):
        path.unlink()
    write_shards(tmp_path / "data", (5, 4))
    with pytest.raises(ShardError, match=r"00000.tar has changed, it had 3 samples: start again"):
        source.read(0)
