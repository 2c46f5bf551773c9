from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from shard_files import image

from blip2_train.data.rejections import UnusableSample
from blip2_train.data.sources.annotation_source import AnnotationSource
from blip2_train.data.sources.config import SourceConfig, open_source, source_weights
from blip2_train.data.stream.stream import usable_captions
from blip2_train.errors import ConfigError, ShardError


def _write(folder: Path, **changes: Any) -> str:
    images = [
        {"filename": f"{index}.jpg", "filepath": "val2014", "split": split, "cocoid": 1000 + index,
         "sentences": [{"raw": f"caption {index} {sentence}"} for sentence in range(5)]}
        for index, split in enumerate(["train", "restval", "val", "test", "val"])
    ]  # fmt: skip
    (folder / "val2014").mkdir(parents=True)
    for index in range(4):  # the fifth image is missing
        (folder / "val2014" / f"{index}.jpg").write_bytes(image())
    (folder / "dataset.json").write_text(json.dumps({"images": images} | changes))
    return str(folder / "dataset.json")


def test_splits_captions_and_identities(tmp_path: Path) -> None:
    path = _write(tmp_path)
    source = AnnotationSource(path, str(tmp_path), "val", "coco")
    assert len(source) == 2 and source.sample_location(0) == (path, "dataset", "val2014/2.jpg", "entry 3 of images")
    record = source.read(0)
    assert record.captions == tuple(f"caption 2 {sentence}" for sentence in range(5))
    assert record.image_id == 1002 and record.image == image()
    with pytest.raises(UnusableSample) as caught:
        source.read(1)
    assert caught.value.reason == "missing image"
    training = AnnotationSource(path, str(tmp_path), "train+restval", "coco")
    assert len(training) == 2 and training.fingerprint() != source.fingerprint()


def test_broken_files_are_one_clear_line(tmp_path: Path) -> None:
    path, images = _write(tmp_path), str(tmp_path)
    (tmp_path / "list.json").write_text('[{"image": "a.jpg"}]')
    (tmp_path / "torn.json").write_text('{"images": [')
    (tmp_path / "bare.json").write_text('{"images": [{"split": "val"}]}')
    for arguments, message in [
        ((str(tmp_path / "no.json"), images, "val"), "no.json does not exist"),
        ((str(tmp_path / "misspelt" / "no.json"), None, "val"), "annotation file .*no.json does not exist"),
        ((path, str(tmp_path / "nowhere"), "val"), "image folder .*nowhere does not exist"),
        ((path, images, "dev"), "no image of split 'dev'; its splits are restval, test, train, val"),
        ((path, images, "train+rest"), "no image of split 'rest'"),
        ((path, images, None), "has the splits restval, test, train, val: choose with split"),
        ((path, str(tmp_path / "val2014"), "val"), "there is no image .*val2014/val2014/2.jpg, nor any other of 2"),
        (
            (str(tmp_path / "list.json"), images, None),
            "has no column 'caption' or 'text' or .*; its columns are 'image'",
        ),
        ((str(tmp_path / "torn.json"), images, "val"), r"torn.json is broken JSON"),
        ((str(tmp_path / "bare.json"), images, "val"), "entry 1 of images: lacks 'filename'; expected a Karpathy JSON"),
    ]:
        with pytest.raises(ShardError, match=message) as caught:
            AnnotationSource(*arguments, "coco")
        assert "\n" not in str(caught.value)


def test_source_descriptions(tmp_path: Path) -> None:
    path = _write(tmp_path)
    assert isinstance(open_source(SourceConfig(path=path, images=str(tmp_path), split="val")), AnnotationSource)
    assert SourceConfig(path="/data/cc3m/*.tar").title == "cc3m"
    assert SourceConfig(path="/data/cc3m").title == "cc3m"
    assert SourceConfig(path=["/a/0.tar", "/a/1.tar"], name="mine").title == "mine"
    for_files = [
        {"path": "shards", "split": "val"},
        {"path": [path], "images": "x"},
        {"path": "x", "picture_column": "a"},  # a caption column chooses the key in the .json of shards
    ]
    for wrong in (*for_files, {"path": "x", "weight": 0.0}, {"path": "x", "first_captions": 0}):
        with pytest.raises(ConfigError):
            SourceConfig(**wrong)


def test_weights_are_sizes_or_all_given() -> None:
    plain, weighted = SourceConfig(path="a"), SourceConfig(path="b", weight=2)
    assert source_weights([plain, SourceConfig(path="b")], [10, 30]) == [10, 30]
    assert source_weights([SourceConfig(path="a", weight=1), weighted], [10, 30]) == [1, 2]
    with pytest.raises(ConfigError, match="'a' has no weight"):
        source_weights([plain, weighted], [10, 30])
    with pytest.raises(ConfigError, match="two data sources are named 'a'"):
        source_weights([plain, SourceConfig(path="other/a")], [1, 1])


def _regions(*phrases: tuple[int, list[str]]) -> list[dict[str, Any]]:
    box = {"x": 1, "y": 2, "width": 3, "height": 4}
    return [
        {
            "id": index,
            "regions": [{"region_id": n, "image_id": index, "phrase": p, **box} for n, p in enumerate(texts)],
        }
        for index, texts in phrases
    ]


def test_regions_of_visual_genome_lie_in_two_folders(tmp_path: Path) -> None:
    for folder, index in (("VG_100K", 1), ("VG_100K_2", 2), ("VG_100K_2", 3), ("VG_100K_2", 4)):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{index}.jpg").write_bytes(image((50 * index, 0, 0)))
    content = _regions((1, ["a red car", " ", "A man."]), (2, ["dog"]), (3, ["\n"]), (4, []), (5, ["cat"]))
    file = tmp_path / "region_descriptions.json"
    file.write_text(json.dumps(content))
    source = open_source(SourceConfig(path=str(file), images=str(tmp_path / "VG_100K*"), name="vg"))
    first, second = source.read(0), source.read(1)
    assert first.captions == ("a red car", " ", "A man.") and first.image == image((50, 0, 0))
    assert second.image == image((100, 0, 0)) and first.image_id not in (1, second.image_id)
    (blank,) = source.rejected
    assert (blank.key, blank.reason, blank.detail) == ("1.jpg", "blank caption", "entry 1: caption 2 of 3 is blank")
    with pytest.raises(UnusableSample, match=r"no 5.jpg in .*VG_100K, .*VG_100K_2"):
        source.read(4)
    with pytest.raises(UnusableSample, match="no caption"):
        source.read(3)
    with pytest.raises(UnusableSample, match="nothing is left"):
        usable_captions(source.read(2), source.read(2).captions)

    wrong = {
        "entry 1: image 1 has a region of image 7": _regions((1, ["x"])),
        "entry 1, regions 1: lacks 'phrase'": [{"id": 1, "regions": [{"image_id": 1}]}],
        "entry 1, regions 1: phrase 3 is no text": _regions((1, [3])),  # type: ignore[list-item]
        "entry 2: image 'visual_genome_1' comes twice .1.jpg, entry 1.": _regions((1, ["x"]), (1, ["y"])),
        "holds Visual Genome's questions; its captions are in region_desc": [{"id": 1, "qas": []}],
    }
    wrong["entry 1: image 1 has a region of image 7"][0]["regions"][0]["image_id"] = 7
    for message, broken in wrong.items():
        file.write_text(json.dumps(broken))
        with pytest.raises(ShardError, match=message) as caught:
            AnnotationSource(str(file), str(tmp_path / "VG_100K*"), None, "vg")
        assert str(file) in str(caught.value) and "\n" not in str(caught.value)
