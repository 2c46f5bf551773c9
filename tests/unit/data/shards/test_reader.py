"""Shards on an S3 server: the same samples as on this machine, through few requests, whatever happens on the way."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from s3_server import S3
from shard_files import write_shards

from blip2_train.cli.make_shards import main as make_shards
from blip2_train.data.batches.transforms import CLIP_MEAN, CLIP_STD, TrainTransform
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.sources.holdout import TrainingSource
from blip2_train.data.sources.shard_source import ShardSource
from blip2_train.data.storage.options import StorageOptions
from blip2_train.data.stream.stream import TrainingStream
from blip2_train.errors import ConfigError, DamagedFile, ShardError


@pytest.fixture
def root(tmp_path: Path, s3: S3, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with shards of 12 samples, which lie on the server too, as `foreign` and as `made` with notes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    s3.upload(write_shards(tmp_path / "foreign", (5, 4, 3)), "foreign")
    options = ["samples_per_shard=5", "duplicates=keep", "workers=1"]
    make_shards([f"source={tmp_path / 'foreign'}", f"output={tmp_path / 'made'}", *options])
    s3.upload(tmp_path / "made", "made")
    s3.requests.clear()
    return tmp_path


def opened(path: str | list[str], index: Path, **options: object) -> ShardSource:
    settings = {"attempts": 2, "first_pause": 0.01, **options}
    return ShardSource(path, "s", index, StorageOptions(**settings))  # type: ignore[arg-type]


def content(source: ShardSource) -> list[object]:
    return [(source.read(n), source.sample_location(n)[1:], source.details(n)) for n in range(len(source))]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["foreign", "made"])
def test_the_same_as_on_this_machine(kind: str, root: Path, s3: S3) -> None:
    local = opened(str(root / kind), root / "index")
    listed = [f"s3://data/{kind}/{shard:05d}.tar" for shard in range(3)]
    for path in (f"s3://data/{kind}", f"s3://data/{kind}/*.tar", listed):
        remote = opened(path, root / "index")
        assert content(remote) == content(local) and remote.fingerprint() == local.fingerprint()
        assert (remote.size, remote.files) == (local.size, local.files)


@pytest.mark.slow
def test_shards_with_notes_are_opened_without_reading_them(root: Path, s3: S3) -> None:
    source = opened("s3://data/made", root / "index")
    assert len(source) == 12 and s3.gets(".tar") == s3.gets(".npy") == 0
    source.read(7)
    source.read(8)
    assert s3.gets(".npy") == 1 and s3.gets("00001.tar") == s3.gets(".tar") == 2
    assert content(opened("s3://data/made", root / "index")) and s3.gets(".npy") == 3
    before = s3.gets(".tar")
    opened("s3://data/foreign", root / "index")
    assert s3.gets(".tar") == before + 3
    opened("s3://data/foreign", root / "index")
    assert s3.gets(".tar") == before + 3


@pytest.mark.slow
def test_rows_that_do_not_fit_are_refused(root: Path, s3: S3) -> None:
    s3.put("made/00001.index.npy", (root / "made" / "00002.index.npy").read_bytes())
    with pytest.raises(ShardError, match=r"00001.index.npy does not fit s3://data/made/00001.tar, which has 5 samples"):
        opened("s3://data/made", root / "index").read(7)


BAD: dict[str, Callable[[S3], None]] = {
    "unreadable shard": lambda s3: s3.delete("made/00001.tar"),
    "truncated shard": lambda s3: s3.put("made/00001.tar", s3.content("made/00001.tar")[""][:900]),
}


@pytest.mark.slow
@pytest.mark.parametrize("reason", BAD)
def test_a_shard_that_goes_bad_is_counted_or_ends_the_run(reason: str, root: Path, s3: S3) -> None:
    skipping = opened("s3://data/made", root / "index")
    stopping = opened("s3://data/made", root / "index", bad_shards="stop")
    BAD[reason](s3)
    with pytest.raises(UnusableSample) as caught:
        skipping.read(8)
    assert caught.value.reason == reason and "made/00001.tar" in caught.value.detail
    with pytest.raises(ShardError, match=rf"{reason}: s3://data/made/00001.tar.*bad_shards=skip"):
        stopping.read(8)
    assert skipping.read(2).captions and stopping.read(11).captions


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["s3://data/made", "{root}/made"])
def test_a_shard_that_is_listed_and_not_there(folder: str, root: Path, s3: S3) -> None:
    s3.delete("made/00001.tar")
    (root / "made" / "00001.tar").unlink()
    path = folder.format(root=root)
    source = opened(path, root / "index")
    assert len(source) == 7 and [(one.source, one.reason) for one in source.rejected] == [
        (f"{path}/00001.tar", "missing shard")
    ]
    with pytest.raises(ShardError, match=r"missing shard: .*00001.tar: index.json lists it"):
        opened(path, root / "index", bad_shards="stop")


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["s3://data/made", "{root}/made"])
def test_a_count_that_changed_in_the_list_of_shards(folder: str, root: Path, s3: S3) -> None:
    index = root / "made" / "index.json"
    changed = index.read_text().replace('"samples": 12', '"samples": 13', 1)
    assert changed != index.read_text()
    index.write_text(changed)
    s3.put("made/index.json", changed.encode())
    with pytest.raises(DamagedFile, match=r"index\.json is damaged: its content does not fit its checksum; remove it"):
        opened(folder.format(root=root), root / "index")


@pytest.mark.slow
def test_the_cache_requests_each_block_once_and_keeps_its_limit(root: Path, s3: S3) -> None:
    expected = content(opened(str(root / "made"), root / "index"))
    options = {"cache": str(root / "pieces"), "read_ahead_mb": 0.004}
    sources = [opened("s3://data/made", root / "index", **options) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert all(result == expected for result in pool.map(content, sources))
    assert s3.gets(".tar") == len(list((root / "pieces").glob("*.piece"))) > 6
    small = opened("s3://data/made", root / "index", cache=str(root / "small"), read_ahead_mb=0.004, cache_gb=13e-6)
    for sample_index in (*range(12), 0, 11):
        assert small.read(sample_index).image
        assert 0 < sum(path.stat().st_size for path in (root / "small").glob("*.piece")) <= 13_000


@pytest.mark.slow
def test_the_least_recently_used_block_is_removed_first(root: Path, s3: S3) -> None:
    options = {"cache": str(root / "pieces"), "read_ahead_mb": 0.004, "cache_gb": 9e-6}
    source = opened("s3://data/made", root / "index", **options)
    source._reader._cache.read(source._catalog.shard(0), 0, 9)  # type: ignore[arg-type, union-attr]
    for block in (1, 0, 2):  # 0 is used again before 2 needs room
        time.sleep(0.01)
        source._reader._cache.read(source._catalog.shard(0), 4000 * block, 4000 * block + 9)  # type: ignore[arg-type, union-attr]
    before = s3.gets(".tar")
    source._reader._cache.read(source._catalog.shard(0), 0, 9)  # type: ignore[arg-type, union-attr]
    assert s3.gets(".tar") == before == 3
    source._reader._cache.read(source._catalog.shard(0), 4000, 4009)  # type: ignore[arg-type, union-attr]
    assert s3.gets(".tar") == 4


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_is_one_line(root: Path) -> None:
    (root / "file").write_text("")
    with pytest.raises(ConfigError, match=r"data.storage.cache .*file/x cannot be written"):
        opened("s3://data/made", root / "index", cache=str(root / "file" / "x"))


def stream(path: str, index: Path) -> TrainingStream:
    source = TrainingSource(source=opened(path, index), weight=1.0, held_out=np.array([3], dtype=np.int64))
    transform = TrainTransform(24, CLIP_MEAN, CLIP_STD, (0.5, 1.0), (0.75, 1.33), 0.5)
    return TrainingStream([source], transform, 5, shuffle_block=2, shuffle_window=4)


@pytest.mark.slow
def test_a_batch_is_read_ahead_and_is_the_same(root: Path, s3: S3) -> None:
    s3.fault = lambda method, path, sample_index: "500" if sample_index % 5 == 4 else ""
    remote, local = stream("s3://data/made", root / "index"), stream(str(root / "made"), root / "index")
    remote[0]
    for positions in ([0, 1, 2, 3], [9, 10, 11, 12]):
        batch, expected = remote.__getitems__(positions), [local[position] for position in positions]
        assert [sample.sample_id for sample in batch] == [sample.sample_id for sample in expected]
        assert all(torch.equal(a.pixel_values, b.pixel_values) for a, b in zip(batch, expected, strict=True))
        assert all(sample.rejected == () for sample in batch)
    s3.fault = lambda *_: ""
    source, before = opened("s3://data/made", root / "index"), s3.gets(".tar")
    source.read_ahead([0, 6, 11])
    assert all(source.read(sample_index).image for sample_index in (11, 0, 6))
    assert s3.gets(".tar") == before + 3
