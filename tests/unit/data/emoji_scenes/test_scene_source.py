"""Scenes that are drawn when they are read equal those of the written shards, and a run chooses between the two."""

from __future__ import annotations

import json
import logging
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from blip2_train.data.emoji_scenes import world as world_module
from blip2_train.data.emoji_scenes.layout import WorldPaths
from blip2_train.data.emoji_scenes.scene_source import SceneSource, SceneSourceConfig, prepare_scenes
from blip2_train.data.emoji_scenes.world import ensure_world, write_world
from blip2_train.data.fingerprint import check_fingerprint
from blip2_train.data.prepare.engine import LocalEngine
from blip2_train.data.sequential.source import open_sequential
from blip2_train.data.shards.writer import ShardWriter
from blip2_train.data.sources.config import open_source
from blip2_train.data.sources.holdout import open_training_sources, sources_fingerprint
from blip2_train.data.sources.shard_source import ShardSource
from blip2_train.errors import CheckpointMismatch, ConfigError, ShardError

SIZE: dict[str, Any] = {
    "seed": 3,
    "train_scenes": 45,
    "val_scenes": 12,
    "test_scenes": 4,
    "nocaps_scenes": 3,
    "samples_per_shard": 10,
}
FEW = {"steps": 1, "global_batch_size": 5}


def _config(folder: Path, split: str) -> SceneSourceConfig:
    return SceneSourceConfig(path=str(WorldPaths(root=folder).shards(split)), name=f"emoji_{split}")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a world that is not written."""
    folder = tmp_path_factory.mktemp("drawn") / "emoji"
    prepare_scenes(folder, **FEW, **SIZE)
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("written") / "emoji", **SIZE).root


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_drawn_samples_are_those_of_the_shards(split: str, drawn: Path, written: Path) -> None:
    one, other = open_source(_config(drawn, split)), open_source(_config(written, split))
    assert isinstance(one, SceneSource) and isinstance(other, ShardSource)
    assert len(one) == len(other) == SIZE[f"{split}_scenes"]
    for index in reversed(range(len(one))):
        assert one.read(index) == other.read(index), "in any order, and again"
        assert one.sample_location(index)[1:] == other.sample_location(index)[1:]
        assert Path(one.sample_location(index).file).name == Path(other.sample_location(index).file).name
    assert one.read(3) == other.read(3)
    assert (one.files, one.fingerprint(), one.rejected) == (other.files, other.fingerprint(), ())


def test_a_run_resumes_from_the_other_kind(drawn: Path, written: Path) -> None:
    prints = [sources_fingerprint(open_training_sources([_config(folder, "train")], 4)) for folder in (drawn, written)]
    check_fingerprint(prints[0], prints[1])
    check_fingerprint(prints[1], prints[0])


def test_many_readers_draw_at_once(drawn: Path, written: Path) -> None:
    source, shards = open_source(_config(drawn, "val")), open_source(_config(written, "val"))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(source.read, [*range(12)] * 3)) == [shards.read(index) for index in range(12)] * 3


@pytest.mark.parametrize(
    "much", [{"steps": 2}, {"access": "sequential"}, {"whole": True}], ids=["samples", "sequential", "whole"]
)
def test_a_run_that_reads_much_writes_the_world(much: dict[str, Any], tmp_path: Path) -> None:
    prepare_scenes(tmp_path / "emoji", **FEW | much, **SIZE)
    assert isinstance(open_source(_config(tmp_path / "emoji", "train")), ShardSource)
    assert open_sequential([_config(tmp_path / "emoji", "train")], hold_out=False)[0].sizes[0] > 10_000


def test_a_run_of_few_samples_writes_nothing_and_reads_what_is_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "new" / "emoji"
    with caplog.at_level(logging.INFO):
        prepare_scenes(folder, **FEW, **SIZE)
    assert "reads 5 of 45 emoji scenes" in caplog.text
    assert not folder.exists() and isinstance(open_source(_config(folder, "train")), SceneSource)
    ensure_world(folder, **SIZE)
    prepare_scenes(folder, **FEW, **SIZE)
    assert isinstance(open_source(_config(folder, "train")), ShardSource)
    with pytest.raises(ConfigError, match="train_scenes 45 instead of 60"):
        prepare_scenes(folder, **FEW, **SIZE | {"train_scenes": 60})


def test_runs_that_share_a_folder_draw_one_world(tmp_path: Path) -> None:
    for _ in range(2):
        prepare_scenes(tmp_path / "emoji", **FEW, **SIZE)
    for change, words in (
        ({"train_scenes": 60}, "train_scenes 45 instead of 60"),
        ({"seed": 7}, "seed 3 instead of 7"),
    ):
        with pytest.raises(ConfigError, match=rf"\.emoji\.size\.json holds another world \({words}\).*or remove it"):
            prepare_scenes(tmp_path / "emoji", **FEW, **SIZE | change)
    assert len(open_source(_config(tmp_path / "emoji", "train"))) == 45


def test_a_run_goes_on_with_the_same_scenes_only(tmp_path: Path) -> None:
    def kept(name: str, **change: Any) -> dict[str, Any]:
        prepare_scenes(tmp_path / name, **FEW, **SIZE | change)
        return sources_fingerprint(open_training_sources([_config(tmp_path / name, "train")], 4))

    before = kept("one")
    check_fingerprint(before, kept("two"))
    check_fingerprint(before, kept("fewer", val_scenes=5, image_folders=["val"]))
    with pytest.raises(CheckpointMismatch, match="content of shards: scenes in source emoji_train"):
        check_fingerprint(before, kept("other", seed=7))
    check_fingerprint({name: value for name, value in before.items() if "content" not in name}, before)


def test_what_is_wrong_is_one_line(tmp_path: Path, drawn: Path) -> None:
    with pytest.raises(ConfigError, match="val_scenes is -1"):
        prepare_scenes(tmp_path / "emoji", **FEW, **SIZE | {"val_scenes": -1})
    with pytest.raises(ShardError):
        open_source(_config(tmp_path / "emoji", "train"))  # prepare_scenes did not run
    with pytest.raises(ShardError):
        open_source(_config(drawn, "nocaps"))  # no shards of it in a written world either
    prepare_scenes(tmp_path / "other", **FEW, **SIZE)
    (tmp_path / ".other.size.json").write_text('{"seed": "x"}')
    with pytest.raises(ConfigError, match=r"size\.json.*remove it"):
        open_source(_config(tmp_path / "other", "train"))


def test_processes_write_the_same_world(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world_module, "_WORTH_PROCESSES", 1)
    monkeypatch.setattr(world_module, "cores", lambda: 3)
    again = write_world(tmp_path / "emoji", **SIZE).root
    files = [path.relative_to(written) for path in written.rglob("*") if path.is_file()]
    assert len(files) > 20 and all((again / file).read_bytes() == (written / file).read_bytes() for file in files)
    assert json.loads((again / "world.json").read_text())["train_scenes"] == 45


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chosen", "methods", "workers"),
    [
        ("fork", ["spawn"], 3),
        ("spawn", ["fork"], 1),
        ("forkserver", ["fork"], 1),
        (None, ["fork", "spawn"], 3),
        (None, ["spawn", "fork"], 1),
    ],
)
def test_no_process_imports_the_main_module_again(
    chosen: str | None, methods: list[str], workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    def engine(count: int) -> LocalEngine:
        started.append(count)
        return LocalEngine(1)

    monkeypatch.setattr(world_module, "_WORTH_PROCESSES", 1)
    monkeypatch.setattr(world_module, "cores", lambda: 3)
    monkeypatch.setattr(world_module, "LocalEngine", engine)
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none: chosen)
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: methods)
    write_world(tmp_path / "emoji", **SIZE)
    assert started == [workers]


def test_shards_of_one_folder_by_several_writers(tmp_path: Path) -> None:
    for first in (1, 0):
        with ShardWriter(tmp_path, samples_per_shard=2, first_shard=first) as writer:
            keys = [writer.write(b"x", "a cat", size=(1, 1)) for _ in range(2)]
        assert keys == [f"0000{first}0", f"0000{first}1"]
    assert sorted(path.name for path in tmp_path.glob("*.tar")) == ["00000.tar", "00001.tar"]
    with pytest.raises(ShardError, match="already holds shards"):
        ShardWriter(tmp_path)
