"""Shards in img2dataset's layout."""

from __future__ import annotations

import gc
import hashlib
import json
import sys
import tarfile
import warnings
from pathlib import Path

import pytest
import webdataset

from blip2_train.data.shards.writer import ShardFile, ShardWriter
from blip2_train.errors import ShardError


def fill(folder: Path, count: int, samples_per_shard: int = 10_000) -> list[str]:
    with ShardWriter(folder, samples_per_shard=samples_per_shard) as writer:
        return [writer.write(b"jpg %d" % i, f"caption {i}", size=(6, 4), extra={"image_id": i}) for i in range(count)]


def test_names_follow_img2dataset(tmp_path: Path) -> None:
    assert fill(tmp_path, 13)[12] == "000000012"
    with tarfile.open(tmp_path / "00000.tar") as tar:
        assert tar.getnames()[-3:] == ["000000012.jpg", "000000012.json", "000000012.txt"]


def test_keys_carry_the_shard_and_shards_end_where_they_should(tmp_path: Path) -> None:
    keys = fill(tmp_path, 25, samples_per_shard=10)
    assert (keys[9], keys[10], keys[24]) == ("000009", "000010", "000024")
    counts = {path.name: json.loads(path.read_text())["successes"] for path in tmp_path.glob("*_stats.json")}
    assert counts == {"00000_stats.json": 10, "00001_stats.json": 10, "00002_stats.json": 5}
    assert not list(tmp_path.glob("*.part"))


def test_record_has_img2datasets_keys_and_the_extra_ones(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    with tarfile.open(tmp_path / "00000.tar") as tar:
        record = json.load(tar.extractfile("000000000.json"))  # type: ignore[arg-type]
    assert record["sha256"] == hashlib.sha256(b"jpg 0").hexdigest()
    assert (record["width"], record["height"], record["original_width"]) == (6, 4, 6)
    assert (record["caption"], record["key"], record["status"], record["image_id"]) == (
        "caption 0",
        "000000000",
        "success",
        0,
    )
    assert {"url", "error_message", "exif", "original_height"} <= record.keys()


def test_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    fill(tmp_path / "one", 5)
    fill(tmp_path / "two", 5)
    assert (tmp_path / "one" / "00000.tar").read_bytes() == (tmp_path / "two" / "00000.tar").read_bytes()
    with tarfile.open(tmp_path / "one" / "00000.tar") as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname) for m in tar} == {(0, 0, 0, "")}


def test_an_interrupted_shard_keeps_its_suffix(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), ShardWriter(tmp_path) as writer:
        writer.write(b"x", "caption", size=(1, 1))
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["00000.tar.part"]


def test_refusals(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    with pytest.raises(ShardError, match="already holds shards"):
        ShardWriter(tmp_path)
    with pytest.raises(ValueError, match="samples_per_shard"):
        ShardWriter(tmp_path / "new", samples_per_shard=0)
    with pytest.raises(ValueError, match="caption"):
        ShardWriter(tmp_path / "new").write(b"x", "c", size=(1, 1), extra={"caption": "other"})


def test_no_samples_no_shards(tmp_path: Path) -> None:
    fill(tmp_path, 0)
    assert list(tmp_path.iterdir()) == []


def test_the_bytes_are_those_of_every_version(tmp_path: Path) -> None:
    """Folders of shards that an earlier version began go on, and the emoji scenes stay those of the records."""
    shard = ShardFile(tmp_path / "one.tar", 3, 100)
    for size, extension in ((0, "jpg"), (513, "png"), (10_240, "webp")):
        shard.write(bytes(size), "café\n", size=(3, 4), url="x", extra={"captions": ["a"]}, extension=extension)
    shard.close()
    digest = hashlib.sha256((tmp_path / "one.tar").read_bytes()).hexdigest()
    assert digest == "d515fc3d76e92298175de881e6e53d09b7a366647944fd0ee13fab2d87208f2d"


def test_webdataset_reads_what_is_written(tmp_path: Path) -> None:
    keys = fill(tmp_path, 3)
    samples = list(webdataset.WebDataset(str(tmp_path / "00000.tar"), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == keys
    assert [(sample["jpg"], sample["txt"]) for sample in samples] == [
        (b"jpg %d" % i, b"caption %d" % i) for i in range(3)
    ]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.filterwarnings("error")
def test_a_full_disk_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings(action="ignore"):
        gc.collect()  # what other tests of this process left is none of this one's
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    shard = ShardFile(Path("/dev/full"), 0, 10)
    with pytest.raises(OSError, match="No space left"):
        for _ in range(5):
            shard.write(bytes(100_000), "caption", size=(1, 1))
    del shard
    gc.collect()
    assert unraisable == []
