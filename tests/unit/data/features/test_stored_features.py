"""Features are stored once, whatever is killed, and read instead of images."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from feature_files import SmallTower, noise, preparation, write_features, write_noise_shards
from shard_files import write_tar, write_tokenizer

from blip2_train.data.batches.collate import load_image_text_collator
from blip2_train.data.batches.images import decode_image
from blip2_train.data.batches.transforms import CLIP_MEAN, CLIP_STD, EvalTransform, TrainTransform
from blip2_train.data.features.image_keys import CROPS, EVALUATION, ImageTable, Stored, image_key, table_rows
from blip2_train.data.features.store import open_features
from blip2_train.data.features.writing import crop_generator
from blip2_train.data.prepare import journal
from blip2_train.data.prepare.engine import LocalEngine
from blip2_train.data.sources.config import SourceConfig
from blip2_train.errors import CheckpointMismatch, ConfigError, ShardError
from blip2_train.system.atomic_write import write_checked
from blip2_train.training.data_module import ImageTextDataModule


@pytest.fixture(autouse=True)
def small_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(journal, "CHUNK", 6)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """26 images, 2 of which are held out."""
    return write_noise_shards(tmp_path / "shards", (9, 17))


def module(shards: Path, **changes: Any) -> ImageTextDataModule:
    tokenizer = write_tokenizer(shards.parent / "bert")
    options: dict[str, Any] = {
        "sources": [SourceConfig(path=str(shards), name="set")],
        "collator": load_image_text_collator(tokenizer=tokenizer, max_text_length=12),
        "image_size": 16,
        "mean": CLIP_MEAN,
        "std": CLIP_STD,
        "global_batch_size": 8,
        "steps": 12,
        "seed": 3,
        "holdout": 2,
        "num_workers": 0,
    }
    data = ImageTextDataModule(**(options | changes))
    data.prepare_data()
    data.setup()
    return data


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def crop(content: bytes, number: int, seed: int = 3) -> torch.Tensor:
    """Features of a training crop, computed now."""
    transform = TrainTransform(16, CLIP_MEAN, CLIP_STD)
    pixels = transform.from_file(content, crop_generator(seed, image_key(content, None), number))
    return SmallTower()(pixels[None])


def test_an_image_has_its_crops_and_an_image_of_validation_the_whole(shards: Path, tmp_path: Path) -> None:
    data = module(shards)
    index = write_features(data, tmp_path / "features")
    assert index["images"] == 26 and index["crops"] == 2 * 24 + 2 and index["rejected"] == {}
    features = open_features(str(tmp_path / "features"))
    training, validation = data.image_sets()
    content = training.source.read(int(training.indices[5])).image
    drawn = [features.training_crop(content, torch.Generator().manual_seed(seed)) for seed in range(20)]
    expected = [crop(content, number) for number in (0, 1)]
    assert all(any(torch.equal(one, other) for other in expected) for one in drawn)
    assert all(any(torch.equal(one, other) for one in drawn) for other in expected)
    content = validation.source.read(int(validation.indices[0])).image
    whole = EvalTransform(16, CLIP_MEAN, CLIP_STD)(decode_image(content), torch.Generator())
    assert torch.equal(features.evaluation_crop(content, torch.Generator()), SmallTower()(whole[None]))
    with pytest.raises(ShardError, match="no training crops of this image"):
        features.training_crop(content, torch.Generator())


def test_batches_hold_the_features_of_the_same_samples_in_the_same_order(shards: Path, tmp_path: Path) -> None:
    data = module(shards)
    write_features(data, tmp_path / "features")
    other = module(shards, features=str(tmp_path / "features"))
    for plain, stored in zip(data.train_dataloader(), other.train_dataloader(), strict=True):
        assert plain.sample_ids == stored.sample_ids and torch.equal(plain.input_ids, stored.input_ids)
        assert stored.pixel_values.shape == (8, 1, 4, 6)
    assert other.plan().waiting_bytes == stored.pixel_values.nbytes and data.plan().waiting_bytes == 8 * 3 * 16 * 16 * 4
    for plain, stored in zip(data.val_dataloader(), other.val_dataloader(), strict=True):
        assert plain.sample_ids == stored.sample_ids
        assert torch.equal(SmallTower()(plain.pixel_values), stored.pixel_values[:, 0])


@pytest.mark.slow
def test_resuming_and_readers_change_nothing(shards: Path, tmp_path: Path) -> None:
    write_features(module(shards), tmp_path / "features")
    whole = list(module(shards, features=str(tmp_path / "features")).train_dataloader())
    again = module(shards, features=str(tmp_path / "features"), num_workers=1)
    again.resume(5 * 8, again.fingerprint())
    rest = list(again.train_dataloader())
    assert len(rest) == 7
    for one, other in zip(whole[5:], rest, strict=True):
        assert one.sample_ids == other.sample_ids and torch.equal(one.pixel_values, other.pixel_values)


def test_a_run_goes_on_with_the_same_features_only(shards: Path, tmp_path: Path) -> None:
    write_features(module(shards), tmp_path / "one")
    write_features(module(shards), tmp_path / "two", crops=1)
    before = module(shards, features=str(tmp_path / "one")).fingerprint()
    module(shards, features=str(tmp_path / "one")).resume(8, before)
    for change in ({}, {"features": str(tmp_path / "two")}):
        with pytest.raises(CheckpointMismatch, match=r"data\.features was 2 crops"):
            module(shards, **change).resume(8, before)
    assert "data.features" not in module(shards).fingerprint()


@pytest.mark.slow
@pytest.mark.parametrize("stop", [0, 1, 3])
def test_a_killed_command_goes_on_where_it_was(shards: Path, tmp_path: Path, stop: int) -> None:
    write_features(module(shards), tmp_path / "whole")

    class Killed(Exception):
        pass

    def some(work: Any, tasks: Any) -> Iterator[Any]:
        for number, task in enumerate(tasks):
            if number == stop:
                raise Killed
            yield work(task)

    folder, tower = tmp_path / "killed", SmallTower()
    for _ in range(2):  # the second time, what the first has done is found
        with pytest.raises(Killed):
            write_features(module(shards), folder, tower, engine=some)
    with pytest.raises(ShardError, match="was stopped there; repeat its command"):
        open_features(str(folder))
    (folder / ".preparing" / "parts-left").mkdir()
    shard = folder / "00000.tar"
    if stop == 3 and shard.is_file():
        shard.write_bytes(shard.read_bytes()[:-1])  # damaged since
    amounts: list[Any] = []
    write_features(module(shards), folder, tower, amounts=amounts)
    assert digests(folder) == digests(tmp_path / "whole") and not (folder / ".preparing").exists()
    assert tower.crops <= 50 + 8 and (stop == 0 or amounts[0].left <= 50)
    write_features(module(shards), folder, tower := SmallTower())
    assert tower.crops == 0


def test_a_line_that_a_killed_process_left_incomplete_swallows_no_other(shards: Path, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def until(last: int) -> Any:
        def engine(work: Any, tasks: Any) -> Iterator[Any]:
            for number, task in enumerate(tasks):
                if number == last:
                    raise Killed
                yield work(task)

        return engine

    folder = tmp_path / "features"
    finished = folder / ".preparing" / "shards.jsonl"
    prepared = preparation(module(shards), folder, SmallTower())
    with pytest.raises(Killed):
        prepared.run(LocalEngine(1), until(2), lambda *_: None, lambda _: None)
    whole = finished.read_bytes()
    finished.write_bytes(whole[:-7])
    with pytest.raises(Killed):
        prepared.run(LocalEngine(1), until(2), lambda *_: None, lambda _: None)
    assert finished.read_bytes() == whole and whole.count(b"\n") == 2


@pytest.mark.slow
def test_the_number_of_processes_and_the_size_of_batches_change_nothing(shards: Path, tmp_path: Path) -> None:
    write_features(module(shards), tmp_path / "one")
    write_features(module(shards), tmp_path / "two", engine=LocalEngine(2))
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_equal_images_are_stored_once_and_unreadable_ones_are_listed_and_replaced(tmp_path: Path) -> None:
    members = [
        (f"{name}.{kind}", noise(ord(name) % 3) if kind == "jpg" else "a cat")
        for name in "abcdefgh"
        for kind in ("jpg", "txt")
    ]
    members += [("x.jpg", b"none"), ("x.txt", "a dog")]
    write_tar(tmp_path / "shards" / "00000.tar", members)
    data = module(tmp_path / "shards", holdout=0, global_batch_size=9, steps=6, max_rejected_share=1.0)
    amounts: list[Any] = []
    index = write_features(data, tmp_path / "features", amounts=amounts)
    assert index["images"] == 3 and index["crops"] == 6 and index["rejected"] == {"unreadable image": 1}
    assert amounts[0].crops == 8 and amounts[0].bytes >= 6 * 100
    listed = json.loads((tmp_path / "features" / "rejected.jsonl").read_text())
    assert listed["key"] == "x" and listed["reason"] == "unreadable image"
    options: dict[str, Any] = {"holdout": 0, "global_batch_size": 9, "steps": 6, "max_rejected_share": 1.0}
    stored = module(tmp_path / "shards", features=str(tmp_path / "features"), **options)
    rejected = [one for batch in stored.train_dataloader() for one in batch.rejected]
    assert rejected and {(one.key, one.reason) for one in rejected} == {("x", "unreadable image")}


def test_an_image_that_changed_is_named(shards: Path, tmp_path: Path) -> None:
    write_features(module(shards), tmp_path / "features")
    write_noise_shards(shards, (9, 17), first=7)
    with pytest.raises(
        ShardError, match=r"0000\d\.tar: 0000\d{5}: .*features has no features of this image: it changed"
    ):
        list(module(shards, features=str(tmp_path / "features")).train_dataloader())


def test_an_image_that_changes_while_features_are_written_is_named(shards: Path, tmp_path: Path) -> None:
    prepared = preparation(module(shards), tmp_path / "features", SmallTower())
    with pytest.raises(ShardError, match=r"tar: 0000\d{5} changed while features were written"):
        prepared.run(
            LocalEngine(1),
            LocalEngine(1),
            lambda *_: None,
            lambda _: write_noise_shards(shards, (9, 17), first=7) and None,
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_size": 24}, "written with image_size 16, here it is 24"),
        ({"mean": (0.5, 0.5, 0.5)}, "written with mean"),
        ({"crop_scale": (0.9, 1.0)}, r"written with crop_scale \[0.5, 1.0\]"),
        ({"flip": 0.0}, "written with flip 0.5"),
    ],
)
def test_another_transform_is_refused(shards: Path, tmp_path: Path, change: dict[str, Any], words: str) -> None:
    write_features(module(shards), tmp_path / "features")
    with pytest.raises(ConfigError, match=words) as refusal:
        module(shards, features=str(tmp_path / "features"), **change)
    assert "\n" not in str(refusal.value)


def test_a_folder_of_images_that_are_evaluated_only_fits_any_rule_of_training_crops(
    shards: Path, tmp_path: Path
) -> None:
    data = module(shards)
    prepared = preparation(data, tmp_path / "features", SmallTower(), crops=0)
    prepared.run(LocalEngine(1), LocalEngine(1), lambda *_: None, lambda _: None)
    features = open_features(str(tmp_path / "features"))
    features.check_transform({**data.processing(), "flip": 0.0})
    with pytest.raises(ConfigError, match="image_size"):
        features.check_transform({**data.processing(), "image_size": 24})


def test_other_towers_are_refused(shards: Path, tmp_path: Path) -> None:
    write_features(module(shards), tmp_path / "one")
    features = open_features(str(tmp_path / "one"))
    tower = {"name": "small", "dropped_blocks": 1, "overrides": {}, "family": None, "dtype": "float32"}
    features.check_tower(tower, "5" * 64)
    for change, sha256, words in (
        ({"name": "large"}, "5" * 64, "its name is small, that of this model large"),
        ({"dtype": "float16"}, "5" * 64, "its dtype is float32, that of this model float16"),
        ({}, "6" * 64, r"its weights \(SHA-256\) is 5555"),
    ):
        with pytest.raises(ConfigError, match=words):
            features.check_tower(tower | change, sha256)
    write_features(module(shards), tmp_path / "two", sha256="6" * 64)
    with pytest.raises(ConfigError, match="another vision tower"):
        open_features([str(tmp_path / "one"), str(tmp_path / "two")])


def test_several_folders_are_searched_in_order(tmp_path: Path) -> None:
    shards, others = write_noise_shards(tmp_path / "a", (12,)), write_noise_shards(tmp_path / "b", (12,), first=4)
    for name, source in (("one", shards), ("two", others)):
        write_features(module(source, holdout=0), tmp_path / name)
    both = [SourceConfig(path=str(shards), name="a"), SourceConfig(path=str(others), name="b")]
    data = module(shards, sources=both, holdout=0, features=[str(tmp_path / "one"), str(tmp_path / "two")])
    assert sum(len(batch) for batch in data.train_dataloader()) == 96


def test_damage_is_named(shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "features"
    with pytest.raises(ShardError, match="there is no such folder"):
        open_features(str(folder))
    with pytest.raises(ConfigError, match="empty list"):
        open_features([])
    write_features(module(shards), folder)
    with pytest.raises(ShardError, match="holds features made with seed 3, now it is 4; give another output"):
        write_features(module(shards, seed=4), folder)
    shard = folder / "00001.tar"
    content = shard.read_bytes()
    shard.write_bytes(b"\0" * len(content))
    features = open_features(str(folder))
    with pytest.raises(ShardError, match=r"00001.tar cannot be read \(what is stored is not what was written\)"):
        for batch in module(shards, features=str(folder)).train_dataloader():
            assert len(batch)
    shard.write_bytes(content[:-512])
    with pytest.raises(ShardError, match="has another size"):
        open_features(str(folder))
    (folder / "index.json").write_text((folder / "index.json").read_text().replace('"crops": 2', '"crops": 3'))
    with pytest.raises(Exception, match="is damaged"):
        open_features(str(folder))
    assert pickle.loads(pickle.dumps(features)).fingerprint() == features.fingerprint()


def test_a_table_or_precision_that_nothing_writes_is_named(shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "features"
    index = write_features(module(shards), folder)
    rows = np.load(folder / "images.npy")
    for other in (rows[:3], rows.astype(np.int64), rows[0]):
        np.save(folder / "images.npy", other)
        with pytest.raises(
            ShardError, match=r"images.npy is no table of images: it holds u?int64 \(.*not uint64 \(4, N\)"
        ):
            open_features(str(folder))
    np.save(folder / "images.npy", rows)
    index["settings"]["tower"]["dtype"] = "float8"
    write_checked(folder / "index.json", index)
    with pytest.raises(ShardError, match=r"index.json cannot be used \(dtype must be float32.*got 'float8'\)"):
        open_features(str(folder))


def test_the_table_finds_each_image_and_no_other() -> None:
    keys = np.array([[9, 1], [4, 2], [9, 0], [2**64 - 1, 5]], np.uint64)
    stored = [Stored(0, 0, CROPS), Stored(0, 2, EVALUATION), Stored(1, 0, 3), Stored(70_000, 3, 0)]
    rows = table_rows(keys, stored)
    table = ImageTable.__new__(ImageTable)
    table._rows = rows
    assert [table.find((int(a), int(b))) for a, b in keys] == stored and len(table) == 4
    assert table.find((9, 2)) is None and table.find((5, 2)) is None


def test_an_image_turned_otherwise_is_another() -> None:
    assert image_key(b"x", None) == image_key(b"x", 1) != image_key(b"x", 6) != image_key(b"x", 8)
