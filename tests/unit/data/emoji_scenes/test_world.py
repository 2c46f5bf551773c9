"""The world on disk: the same bytes again, official formats, and splits that share nothing."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from blip2_train.data.annotations.caption_layouts import DOMAINS
from blip2_train.data.emoji_scenes import world as world_module
from blip2_train.data.emoji_scenes.concepts import load_concepts
from blip2_train.data.emoji_scenes.layout import WorldPaths
from blip2_train.data.emoji_scenes.scenes import split_of
from blip2_train.data.emoji_scenes.split_scenes import split_scenes
from blip2_train.data.emoji_scenes.world import ensure_world, write_world
from blip2_train.errors import ConfigError

SMALL: dict[str, Any] = {
    "seed": 3,
    "train_scenes": 25,
    "val_scenes": 12,
    "test_scenes": 8,
    "nocaps_scenes": 6,
    "samples_per_shard": 10,
}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> WorldPaths:
    return write_world(tmp_path_factory.mktemp("world") / "emoji", **SMALL)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_arguments_give_the_same_bytes_and_another_seed_others(paths: WorldPaths, tmp_path: Path) -> None:
    again = digests(write_world(tmp_path / "again", **SMALL).root)
    assert again == digests(paths.root)
    other = digests(write_world(tmp_path / "other", **{**SMALL, "seed": 4}).root)
    assert other["shards/train/00000.tar"] != again["shards/train/00000.tar"]


def test_a_larger_world_begins_with_the_smaller(paths: WorldPaths, tmp_path: Path) -> None:
    larger = write_world(tmp_path / "larger", **{**SMALL, "train_scenes": 30})
    first = Path("shards/train/00000.tar")
    assert (larger.root / first).read_bytes() == (paths.root / first).read_bytes()
    assert (larger.root / "shards/val/00000.tar").read_bytes() == (paths.root / "shards/val/00000.tar").read_bytes()


@pytest.mark.slow
def test_splits_share_no_composition() -> None:
    compositions = {
        split: {described.scene.composition for described in split_scenes(split, count, 1)}
        for split, count in (("train", 1500), ("val", 200), ("test", 200), ("nocaps", 90))
    }
    names = list(compositions)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            assert not compositions[first] & compositions[second]
    assert len(compositions["train"]) > 1000


@pytest.mark.slow
def test_splits_share_no_group_of_several_images() -> None:
    groups = {}
    for split, count in (("train", 1500), ("val", 200), ("test", 200)):
        scenes = [described.scene for described in split_scenes(split, count, 1)]
        groups[split] = {tuple(sorted(s.counts.items())) for s in scenes if len(s.items) > 1}
    assert not groups["train"] & groups["val"]
    assert not groups["train"] & groups["test"]
    assert not groups["val"] & groups["test"]


@pytest.mark.slow
def test_held_out_scenes_differ_in_what_they_show() -> None:
    shown = [tuple(sorted(d.scene.counts.items())) for d in split_scenes("val", 256, 1)]
    assert len(set(shown)) == 256


@pytest.mark.slow
def test_novel_concepts_appear_only_in_their_domains() -> None:
    concepts = load_concepts()
    assert 0.13 < sum(c.novel for c in concepts) / len(concepts) < 0.17
    known_words = {word for c in concepts if not c.novel for word in f"{c.name} {c.plural}".split()}
    new_words = {word for c in concepts if c.novel for word in f"{c.name} {c.plural}".split()} - known_words
    for split in ("train", "val", "test"):
        for described in split_scenes(split, 150, 1):
            assert not any(concepts[kind].novel for kind in described.scene.counts)
            question_words = {word for question in described.questions for word in question.text.rstrip("?").split()}
            assert not question_words & new_words
    domains = Counter()
    for described in split_scenes("nocaps", 90, 1):
        novel = {concepts[kind].novel for kind in described.scene.counts}
        assert novel == dict(zip(DOMAINS, ({False}, {False, True}, {True}), strict=True))[described.domain]
        domains[described.domain] += 1
    assert set(domains.values()) == {30}


def test_split_shares() -> None:
    drawn = Counter(split_of(f"{i}x1,{i + 1}x1", 1) for i in range(4000))
    assert 0.73 < drawn["train"] / 4000 < 0.79
    assert all(0.06 < drawn[split] / 4000 < 0.10 for split in ("val", "test", "nocaps"))


def test_shards_hold_images_captions_and_records(paths: WorldPaths) -> None:
    assert [p.name for p in sorted(paths.shards("train").glob("*.tar"))] == ["00000.tar", "00001.tar", "00002.tar"]
    with tarfile.open(paths.shards("val") / "00001.tar") as tar:
        members = {name: tar.extractfile(name).read() for name in tar.getnames()}  # type: ignore[union-attr]
    assert len(members) == 3 * 2
    record = json.loads(members["000010.json"])
    assert len(set(record["captions"])) == 5
    assert members["000010.txt"].decode() == record["caption"] == record["captions"][0]
    file = paths.images / "val" / f"emoji_val_{record['image_id']:012d}.jpg"
    assert file.read_bytes() == members["000010.jpg"]
    with Image.open(file) as image:
        assert (image.size, image.mode) == ((96, 96), "RGB")


def test_annotation_files_agree_with_each_other(paths: WorldPaths) -> None:
    karpathy = json.loads(paths.karpathy.read_text())
    assert Counter(image["split"] for image in karpathy["images"]) == {"val": 12, "test": 8}
    for image in karpathy["images"]:
        assert (paths.images / image["filepath"] / image["filename"]).is_file()
        assert [s["sentid"] for s in image["sentences"]] == image["sentids"]
        assert all(s["tokens"] == s["raw"].split() for s in image["sentences"])
    truth = json.loads(paths.captions("val").read_text())
    sentences = {i["cocoid"]: [s["raw"] for s in i["sentences"]] for i in karpathy["images"] if i["split"] == "val"}
    read: dict[int, list[str]] = {image["id"]: [] for image in truth["images"]}
    for annotation in truth["annotations"]:
        read[annotation["image_id"]].append(annotation["caption"])
    assert read == sentences
    assert len({annotation["id"] for annotation in truth["annotations"]}) == 60


def test_question_files_have_the_official_form(paths: WorldPaths) -> None:
    for split, scenes in (("train", 25), ("val", 12), ("test", 8)):
        questions = {q["question_id"]: q for q in json.loads(paths.questions(split).read_text())["questions"]}
        annotations = json.loads(paths.answers(split).read_text())["annotations"]
        assert {a["question_id"] for a in annotations} == questions.keys()
        assert len({q["image_id"] for q in questions.values()}) == scenes
        for annotation in annotations:
            assert annotation["image_id"] == questions[annotation["question_id"]]["image_id"]
            assert annotation["answer_type"] in ("yes/no", "number", "other")
            assert [answer["answer_id"] for answer in annotation["answers"]] == list(range(1, 11))


def test_nocaps_file_names_a_domain_for_each_image(paths: WorldPaths) -> None:
    images = json.loads(paths.captions("nocaps").read_text())["images"]
    assert [image["domain"] for image in images] == list(DOMAINS) * 2
    assert all((paths.images / "nocaps" / image["file_name"]).is_file() for image in images)


def test_ensure_world_returns_a_finished_world_untouched(paths: WorldPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world_module, "_fill", lambda *_: pytest.fail("written again"))
    assert ensure_world(paths.root, **SMALL) == paths


def test_ensure_world_refuses_other_arguments_and_other_folders(paths: WorldPaths, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="train_scenes 25 instead of 26"):
        ensure_world(paths.root, **{**SMALL, "train_scenes": 26})
    (tmp_path / "letters.txt").write_text("mine")
    with pytest.raises(ConfigError, match="no world"):
        ensure_world(tmp_path, **SMALL)
    with pytest.raises(ConfigError, match="not empty"):
        write_world(tmp_path, **SMALL)


def test_an_interrupted_world_is_never_taken_for_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(world_module, "vqa_json", stop)
        with pytest.raises(KeyboardInterrupt):
            ensure_world(tmp_path / "emoji", **SMALL)
    assert list(tmp_path.iterdir()) == []
    ensure_world(tmp_path / "emoji", **SMALL)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"val_scenes": -1}, "val_scenes is -1"),
        ({"samples_per_shard": 0}, "samples_per_shard is 0"),
        ({"image_folders": ("valid",)}, "image_folders names valid"),
        ({"train_scenes": 1_000_000}, "at most 999999"),
    ],
)
def test_wrong_arguments_are_named(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        write_world(tmp_path / "emoji", **{**SMALL, **wrong})


def test_training_images_as_files_on_request(tmp_path: Path) -> None:
    made = write_world(tmp_path / "emoji", **{**SMALL, "image_folders": ("train",)})
    listed = json.loads(made.karpathy.read_text())["images"]
    assert {image["split"] for image in listed} == {"train"}
    assert len(list((made.images / "train").iterdir())) == len(listed) == 25
