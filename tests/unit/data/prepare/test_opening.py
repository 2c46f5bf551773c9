"""Folders of images with texts, and several sources as one."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from caption_files import as_coco, as_csv, rows, write_images
from shard_files import image, write_shards

from blip2_train.cli.make_shards import main
from blip2_train.data.prepare.opening import open_pairs
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.sources.shard_source import ShardSource
from blip2_train.data.sources.source import PairSource
from blip2_train.errors import Blip2TrainError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def content(source: PairSource) -> list[tuple[bytes, tuple[str, ...], dict[str, Any]]]:
    records = [(source.read(index), source.details(index)) for index in range(len(source))]
    return [(record.image, record.captions, details) for record, details in records]


def as_files(shards: Path, folder: Path) -> Path:
    """What img2dataset would have written with `output_format=files` in place of these shards."""
    for shard in shards.glob("*.tar"):
        with tarfile.open(shard) as tar:
            for member in tar:
                path = folder / shard.stem / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(tar.extractfile(member).read())  # type: ignore[union-attr]
        (folder / f"{shard.stem}_stats.json").write_text("{}")
        (folder / f"{shard.stem}.parquet").write_bytes(b"what img2dataset tells of the images")
    return folder


def test_folders_of_files_are_read_like_shards(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", (3, 2))
    folder = as_files(shards, tmp_path / "files")
    source = open_pairs(str(folder))
    assert content(source) == content(ShardSource(str(shards), "shards"))
    assert source.sample_location(3).key == "00001/000010000.jpg" and source.files == 1
    before = source.fingerprint()
    (folder / "own.v2.JPG").write_bytes(image())
    (folder / "own.v2.txt").write_text("mine")
    (folder / "00000" / "alone.png").write_bytes(image())
    source = open_pairs(str(folder))
    assert len(source) == 7 and source.fingerprint() != before
    assert source.read(6).captions == ("mine",)
    with pytest.raises(UnusableSample, match="missing text"):
        source.read(3)


def test_several_sources_are_one(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 6)
    texts = rows(6)
    first, second = as_csv(tmp_path / "b1", texts[:3]), as_csv(tmp_path / "b2", texts[2:5])
    coco = as_coco(tmp_path / "coco", texts[4:])
    shards = write_shards(tmp_path / "shards", (4,))
    files = as_files(shards, tmp_path / "files")
    (files / "00000" / "own.jpg").write_bytes((tmp_path / "images" / "p00.jpg").read_bytes())
    (files / "00000" / "own.txt").write_text("once more")
    whole = [str(tmp_path / "b*.csv"), str(coco), str(shards), str(files)]
    source = open_pairs(whole, str(tmp_path / "images"))
    given = [open_pairs(str(path), str(tmp_path / "images")) for path in (first, second, coco)]
    assert content(source) == [
        one for part in (*given, open_pairs(whole[2]), open_pairs(whole[3])) for one in content(part)
    ]
    assert [source.sample_location(index).row for index in (3, 4, 5)] == ["line 2", "line 3", "line 4"]

    main([f"source=[{','.join(whole)}]", f"images={tmp_path / 'images'}", f"output={tmp_path / 'out'}", "workers=1"])
    made = ShardSource(str(tmp_path / "out"), "made")
    digests = [hashlib.sha256(made.read(index).image).digest() for index in range(len(made))]
    assert len(set(digests)) == len(digests) == 6 + 4
    listed = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    assert {one["reason"] for one in listed} == {"duplicate"} and len(listed) == len(source) - 10
    assert listed[-1]["key"] == "00000/own.jpg" and "b1.csv: p00.jpg" in listed[-1]["detail"]


def test_a_image_is_the_same_in_every_file_about_one_folder(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        write_images(tmp_path / folder, 1)
        (tmp_path / folder / "captions.csv").write_text("image,caption\np00.jpg,a cat\n")
    files = [str(tmp_path / folder / "captions.csv") for folder in ("x", "y")]
    here, there = (record.image_id for record in map(open_pairs(files, str(tmp_path / "x")).read, (0, 1)))
    assert here == there
    here, there = (record.image_id for record in map(open_pairs(files).read, (0, 1)))
    assert here != there


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": ["a.csv", "a.csv"]}, "annotation file a.csv is listed twice; name it once"),
        ({"path": ["shards", "more"], "images": "x"}, "images=x is for annotation files and Parquet.*not for shards"),
        ({"path": "files", "split": "val"}, "split=val is for annotation files, not for folders; leave it out"),
        ({"path": "none*.csv"}, "annotation file none.*csv does not exist"),
        ({"path": []}, "the list of shards is empty"),
    ],
)  # fmt: skip
def test_mistakes(settings: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    as_files(write_shards(tmp_path / "shards", (1,)), tmp_path / "files")
    with pytest.raises(Blip2TrainError, match=message):
        open_pairs(**settings)
