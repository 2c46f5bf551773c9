"""Images with captions in Parquet files."""

from __future__ import annotations

import base64
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from shard_files import image

from blip2_train.cli.make_shards import main
from blip2_train.data.annotations.columns import Columns
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.sources.parquet_source import ParquetSource, parquet_files
from blip2_train.data.sources.shard_source import ShardSource
from blip2_train.errors import ConfigError, ShardError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def colour(index: int) -> tuple[int, int, int]:
    return index * 20 % 256, 255 - index, 40


def write(path: Path, columns: dict[str, list[Any]], rows_per_group: int = 50) -> Path:
    parquet.write_table(pyarrow.table(columns), path, row_group_size=rows_per_group)
    return path


def cells(kind: str, folder: Path, count: int) -> list[Any]:
    """The images as a column of this kind."""
    contents = [image(colour(index)) for index in range(count)]
    if kind == "content":
        return contents
    if kind == "base64":
        return [base64.b64encode(content).decode() for content in contents]
    names = [f"p{index}.jpg" for index in range(count)]
    for name, content in zip(names, contents, strict=True):
        (folder / name).write_bytes(content)
    if kind == "path":
        return names
    return [
        {"bytes": c if n % 2 else None, "path": name} for n, (c, name) in enumerate(zip(contents, names, strict=True))
    ]


@pytest.mark.parametrize("kind", ["path", "content", "base64", "both"])
def test_rows_are_read_in_any_order(kind: str, tmp_path: Path) -> None:
    images = cells(kind, tmp_path, 160)
    ids = {"image_id": [7 * n for n in range(160)]} if kind == "content" else {}
    texts = [[f"a {n}", f"b {n}"] if kind == "both" else f"a {n}" for n in range(160)]
    for name, part in (("a", slice(0, 120)), ("b", slice(120, 160))):
        columns = {"image": images, "text": texts, "url": [f"u{n}" for n in range(160)], **ids}
        write(tmp_path / f"{name}.parquet", {key: values[part] for key, values in columns.items()}, 80)
    files = parquet_files(str(tmp_path))
    source = ParquetSource(files, None, "rows")
    assert len(source) == 160 and source.sample_location(125)[1:] == ("b", "5", "row 5")
    for index in (0, 1, 79, 80, 3, 159, 121, 64):
        record = source.read(index)
        assert record.image == image(colour(index))
        assert record.captions == ((f"a {index}", f"b {index}") if kind == "both" else (f"a {index}",))
        details = source.details(index)
        assert details["url"] == f"u{index}" and details.get("path") == (
            None if kind in ("content", "base64") else f"p{index}.jpg"
        )
        if kind == "content":
            assert record.image_id == details["image_id"] == 7 * index


def test_shards_of_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    images = [*cells("content", tmp_path, 12), None, b"no image"]
    file = write(tmp_path / "a.parquet", {"jpg": images, "caption": [*(["a cat"] * 11), None, "a", "a"]}, 5)
    main([f"source={file}", f"output={tmp_path / 'shards'}", "workers=2"])
    made = ShardSource(str(tmp_path / "shards"), "made")
    assert [made.read(index).image for index in range(len(made))] == images[:11]
    listed = (tmp_path / "shards" / "rejected.jsonl").read_text()
    assert re.findall('"key": "(.*?)", "reason": "(.*?)"', listed) == [
        ("11", "missing text"), ("12", "missing image"), ("13", "unreadable image"),
    ]  # fmt: skip


def test_lists_of_captions_with_nulls_and_in_one_text(tmp_path: Path) -> None:
    cat = pyarrow.array([["a cat", None], [None], None], pyarrow.list_(pyarrow.string()))
    source = ParquetSource([write(tmp_path / "a.parquet", {"image": ["x", "y", "z"], "captions": cat})], None, "rows")
    (tmp_path / "x").write_bytes(b"0")
    assert source.read(0).captions == ("a cat",)
    for index in (1, 2):
        with pytest.raises(UnusableSample, match="missing text"):
            source.read(index)
    texts = {"image": ["x", "x"], "caption": ["['a cat', 'a dog']", "a [sic] cat"], "nr": [7, 8]}
    file = write(tmp_path / "b.parquet", texts)
    source = ParquetSource([file], None, "rows", Columns(id="nr"))
    assert [source.read(n).captions for n in (0, 1)] == [("a cat", "a dog"), ("a [sic] cat",)]
    assert source.read(1).image_id == source.details(1)["image_id"] == 8
    with pytest.raises(
        ShardError, match=r"no column 'id'; its columns are 'image', 'caption', 'nr'.*id_column=<column>"
    ):
        ParquetSource([file], None, "rows", Columns(id="id"))


def test_damage_costs_the_rows_behind_it_only(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", {"image": cells("content", tmp_path, 90), "text": ["a"] * 90}, 30)
    group = parquet.ParquetFile(file).metadata.row_group(1).column(0)
    data = bytearray(file.read_bytes())
    start = group.dictionary_page_offset or group.data_page_offset
    data[start : start + group.total_compressed_size] = b"\xff" * group.total_compressed_size
    file.write_bytes(data)
    source = ParquetSource([file], None, "rows")
    usable = []
    for index in range(90):
        try:
            source.read(index)
            usable.append(index)
        except UnusableSample as problem:
            assert problem.reason == "unreadable rows"
    assert usable == [*range(30), *range(60, 90)]


def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = write(tmp_path / "00000.parquet", {name: ["x"] for name in ("url", "caption", "key", "status", "sha256")})
    with pytest.raises(ShardError, match=r"no column 'image' or .*; it only describes images in tar shards or folders"):
        ParquetSource([listing], None, "rows")
    laion = write(tmp_path / "laion.parquet", {"URL": ["x"], "TEXT": ["y"]})
    with pytest.raises(ShardError, match=r"laion.parquet lists addresses of images: download .* img2dataset first"):
        ParquetSource([laion], None, "rows")
    with pytest.raises(ShardError, match=r"has no column 'words'; its columns are 'url'.*pass caption_column=<column>"):
        ParquetSource([listing], None, "rows", Columns(image="url", caption="words"))
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(ShardError, match="is no readable Parquet file"):
        ParquetSource([tmp_path / "text.parquet"], None, "rows")
    empty = write(
        tmp_path / "empty.parquet", {"image": pyarrow.array([], "string"), "text": pyarrow.array([], "string")}
    )
    with pytest.raises(ShardError, match="has no rows"):
        ParquetSource([empty], None, "rows")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match=r'needs pyarrow, .*: pip install "blip2_train\[data\]"'):
        ParquetSource([listing], None, "rows")
