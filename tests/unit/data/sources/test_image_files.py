"""Which files below a folder are images, and what is told of the others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from shard_files import image

from blip2_train.data.prepare.opening import open_pairs
from blip2_train.data.sources.image_files import files_below, passed_over_summary


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images with texts, a TIFF and an AVIF with one, names that are no UTF-8, and what lies about elsewhere."""
    root = tmp_path / "folder"
    for name in ("b.jpg", "a.JPG", "below/c.tif", "below/d.avif", "._b.jpg", "below/b.tif", "below/b.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(image(form="TIFF" if name.endswith("tif") else "JPEG"))
    texts = ("b.txt", "a.TXT", "below/c.txt", "below/d.json", "below/b.txt", "readme.txt")
    for name in (*texts, "00000_stats.json", "00000.parquet", "f.heic"):
        (root / name).write_text('{"caption": "a cat"}' if name.endswith("json") else "a cat")
    (root / "nothing").write_text("x")
    (root / os.fsdecode(b"caf\xe9.jpg")).write_bytes(image())
    (root / os.fsdecode(b"caf\xe9.txt")).write_text("a cat")
    (tmp_path / "other").mkdir()
    (root / "linked").symlink_to(tmp_path / "other")
    return root


def test_files_of_a_folder(folder: Path) -> None:
    listed = list(files_below(folder))
    images = [os.fsencode(file.path) for file in listed if not file.passed_over]
    below = [b"below/b.png", b"below/b.tif", b"below/c.tif", b"below/d.avif"]
    assert images == [b"a.JPG", b"b.jpg", b"caf\xe9.jpg", *below]
    line = passed_over_summary(file.passed_over for file in listed if file.passed_over)
    assert line.startswith("13 passed over: 6 .txt file, 2 .json file, ") and "1 hidden file" in line
    assert (
        all(part in line for part in ("1 .heic file", "1 no ending", "1 link to a folder"))
        and passed_over_summary([]) == ""
    )


def test_shards_of_a_folder_tell_what_they_pass_over(folder: Path) -> None:
    source = open_pairs(str(folder))
    keys = [source.sample_location(index).key for index in range(len(source))]
    assert keys == ["a.JPG", "b.jpg", "below/b.png", "below/c.tif", "below/d.avif", r"caf\udce9.jpg"]
    assert [source.read(index).captions for index in range(len(source))] == [("a cat",)] * 6
    assert {(one.key, one.reason, one.detail) for one in source.rejected} == {
        ("._b.jpg", "not an image", "hidden file"),
        ("below/b.tif", "not an image", "another image of the same name"),
        ("f.heic", "not an image", ".heic file"),
        ("linked", "not an image", "link to a folder"),
        ("nothing", "not an image", "no ending"),
        ("readme.txt", "missing image", "no image of this name beside it"),
    }
    assert len({source.read(index).image_id for index in range(6)}) == 6
