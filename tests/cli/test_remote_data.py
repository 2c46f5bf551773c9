"""Shards are made on an S3 server and trained on from there, past its failures, with the results of local ones."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pytest
from caption_files import as_csv, rows, write_images
from pyarrow.parquet import write_table
from s3_server import S3, running_s3
from shard_files import write_shards, write_tokenizer
from tiny_run import arguments

from blip2_train.cli import make_shards
from blip2_train.cli.terminal import run_command
from blip2_train.cli.train.command import main as train


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[S3]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with running_s3(monkeypatch) as server:
        yield server


def test_made_there_and_here_are_the_same_bytes(
    s3: S3, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blip2_train.data.storage.remote._LONGEST_PAUSE", 0.01)
    write_images(tmp_path / "images", 20)
    source = as_csv(tmp_path / "captions", rows(20))
    options = [f"source={source}", f"images={tmp_path / 'images'}", "samples_per_shard=8"]
    make_shards.main([*options, f"output={tmp_path / 'here'}", "workers=1"])
    there = [*options, "output=s3://data/there", "workers=2"]
    s3.fault = lambda method, path, number: "500" if method == "PUT" and "00001.tar" in path else ""
    assert run_command(make_shards.main, there) == 2
    assert "s3://data/there/00001.tar cannot be written: no answer in 5 attempts" in capsys.readouterr().err
    assert "00000.tar" in s3.content("there/") and "index.json" not in s3.content("there/")
    s3.fault = lambda *_: ""
    s3.requests.clear()
    make_shards.main(there)
    assert not any(method == "PUT" and "00000.tar" in path for method, path in s3.requests)
    assert s3.content("there/") == {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()}
    s3.requests.clear()
    make_shards.main(there)
    assert not any(method == "PUT" for method, _ in s3.requests)
    s3.upload(tmp_path / "images", "full")
    assert run_command(make_shards.main, [*options, "output=s3://data/full"]) == 2
    assert "s3://data/full is not empty" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["csv", "parquet", "shards"])
def test_sources_there_give_the_same_bytes(kind: str, s3: S3, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 5)
    as_csv(tmp_path / "captions", rows(5))
    columns = [list(column) for column in zip(*rows(5), strict=True)]
    table = pyarrow.table(columns, names=["image", "text", "image_id"])
    write_table(table, tmp_path / "captions.parquet")
    write_shards(tmp_path / "shards", (3, 2))
    for name in ("images", "shards"):
        s3.upload(tmp_path / name, name)
    for path in (tmp_path / "captions.csv", tmp_path / "captions.parquet"):
        s3.put(path.name, path.read_bytes())
    made = []
    for root in (str(tmp_path), "s3://data"):
        source = "shards" if kind == "shards" else f"captions.{kind}"
        images = [] if kind == "shards" else [f"images={root}/images"]
        made.append(tmp_path / f"made{len(made)}")
        make_shards.main([f"source={root}/{source}", *images, f"output={made[-1]}", "duplicates=keep", "workers=1"])
    here, there = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in made)
    assert here == there and json.loads(here["index.json"])["samples"] > 0


def test_what_is_not_there_is_one_line(s3: S3, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = f"output={tmp_path / 'made'}"
    for source in ("s3://data/none", "s3://data/none.csv", "s3://data/none.parquet", "s3://nobucket/*.tar"):
        assert run_command(make_shards.main, [f"source={source}", output]) == 2
        message = capsys.readouterr().err.strip()
        assert source in message and "\n" not in message


def losses(folder: Path) -> list[str]:
    with (folder / "metrics.csv").open() as file:
        return [row["train/loss_itg"] for row in csv.DictReader(file) if row.get("train/loss_itg")]


def test_a_run_from_there_is_that_from_here(s3: S3, tmp_path: Path) -> None:
    s3.upload(write_shards(tmp_path / "shards", (9, 8, 7)), "shards")
    write_tokenizer(tmp_path / "tokenizer")
    here, there = tmp_path / "here", tmp_path / "there"
    overrides = arguments(tmp_path / "out")
    assert run_command(train, [*overrides, "data.num_workers=0", f"paths.run_dir={here}"]) == 0
    s3.fault = lambda method, path, number: "503" if number % 4 == 3 else ""
    remote = ["data.source=s3://data/shards", "data.num_workers=1", f"paths.run_dir={there}"]
    quick = ["data.storage.first_pause=0.01", f"data.storage.cache={tmp_path / 'pieces'}"]
    assert run_command(train, [*overrides, *remote, *quick]) == 0
    assert len(losses(here)) >= 9 and losses(there) == losses(here)
    assert json.loads((there / "results.json").read_text())["rejected_samples"] == 0
    assert list((tmp_path / "pieces").glob("*.piece"))
