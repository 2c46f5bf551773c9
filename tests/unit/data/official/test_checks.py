"""Readers of official caption files, on small files of each form and on those that the demo world's writer makes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blip2_train.data.annotations.annotated_images import AnnotatedImage
from blip2_train.data.annotations.captions import read_references
from blip2_train.data.emoji_scenes.official_files import caption_json, karpathy_json
from blip2_train.data.emoji_scenes.split_scenes import split_scenes
from blip2_train.data.official.checks import check_no_leak, check_split, missing_images, paths_by_id
from blip2_train.errors import ShardError


def read_coco(path: Path) -> list[AnnotatedImage]:
    return read_references(path, form="coco")


def read_karpathy(path: Path, split: str) -> list[AnnotatedImage]:
    return read_references(path, split, form="karpathy")


def read_caption_list(path: Path, split: str) -> list[AnnotatedImage]:
    return read_references(path, split, form="list")


def without_rows(read_images: list[AnnotatedImage]) -> list[AnnotatedImage]:
    return [replace(image, row="") for image in read_images]


Write = Callable[[str, Any], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def do(name: str, content: Any) -> Path:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return do


def karpathy(index: int, split: str, **changes: Any) -> dict[str, Any]:
    name = f"COCO_val2014_{index:012d}.jpg"
    entry = {"filepath": "val2014", "filename": name, "split": split, "cocoid": index, "imgid": 7}
    return entry | {"sentences": [{"raw": f"caption {index}"}, {"raw": "two"}]} | changes


def coco(**changes: Any) -> dict[str, Any]:
    images = [{"id": 5, "file_name": "5.jpg"}, {"id": 3, "file_name": "3.jpg"}]
    captions = [
        {"id": 1, "image_id": 3, "caption": "three"},
        {"id": 2, "image_id": 5, "caption": "five"},
        {"id": 3, "image_id": 3, "caption": "3"},
    ]
    return {"images": images, "annotations": captions} | changes


def images(*indices: int) -> dict[int | str, str]:
    return {index: f"val2014/{index}.jpg" for index in indices}


def test_karpathy_coco_and_flickr(write: Write) -> None:
    path = write("dataset_coco.json", {"images": [karpathy(n, s) for n, s in ((9, "val"), (4, "restval"), (2, "val"))]})
    read_images = read_karpathy(path, "val")
    assert [image.image_id for image in read_images] == [9, 2]
    assert read_images[0] == AnnotatedImage(
        row="entry 1 of images",
        image_id=9,
        path="val2014/COCO_val2014_000000000009.jpg",
        captions=("caption 9", "two"),
        split="val",
    )
    assert [image.split for image in read_karpathy(path, "restval+val")] == ["val", "restval", "val"]
    flickr = {"filename": "1000092795.jpg", "split": "train", "imgid": 0, "sentids": [0], "sentences": [{"raw": "a"}]}
    (one,) = read_karpathy(write("dataset_flickr30k.json", {"images": [flickr]}), "train")
    assert (one.image_id, one.path, one.captions, one.counted) == (0, "1000092795.jpg", ("a",), True)


def test_lists_of_the_released_code(write: Write) -> None:
    train = [
        {"image": "val2014/COCO_val2014_000000522418.jpg", "caption": "one", "image_id": "coco_522418"},
        {"image": "train2014/COCO_train2014_000000000002.jpg", "caption": "else", "image_id": "coco_2"},
        {"image": "val2014/COCO_val2014_000000522418.jpg", "caption": "two", "image_id": "coco_522418"},
    ]
    path = write("coco_karpathy_train.json", train)
    first, second = read_caption_list(path, "train")
    assert first == AnnotatedImage(row="entry 1", image_id=522418, path=train[0]["image"], captions=("one", "two"))
    assert second.image_id == 2
    test = write("flickr30k_test.json", [{"image": "flickr30k-images/1007.jpg", "caption": ["a", "b"]}])
    assert read_caption_list(test, "test") == [
        AnnotatedImage(row="entry 1", image_id=1007, path="flickr30k-images/1007.jpg", captions=("a", "b"))
    ]
    with pytest.raises(ShardError, match="not the list of split 'train', which has one caption an entry"):
        read_caption_list(test, "train")
    with pytest.raises(ShardError, match="not the list of split 'test', which has a list of captions an entry"):
        read_caption_list(path, "test")


def test_coco_captions_of_images_in_the_order_of_images(write: Write) -> None:
    assert without_rows(read_coco(write("captions.json", coco()))) == [
        AnnotatedImage(image_id=5, path="5.jpg", captions=("five",)),
        AnnotatedImage(image_id=3, path="3.jpg", captions=("three", "3")),
    ]
    only_numbers = coco(images=[{"id": 5}, {"id": 3}])  # coco_karpathy_test_gt.json
    assert [image.path for image in read_coco(write("gt.json", only_numbers))] == ["", ""]


def test_nocaps_has_domains_and_its_test_split_no_captions(write: Write) -> None:
    images = [{"id": 0, "file_name": "0013ea2087020901.jpg", "open_images_id": "0013ea2087020901"}]
    (one,) = read_coco(write("nocaps_test_image_info.json", {"images": images}))
    assert without_rows([one]) == [AnnotatedImage(image_id=0, path="0013ea2087020901.jpg", captions=())]
    domains = ("out-domain", "in-domain")
    with_domains = coco(images=[image | {"domain": d} for image, d in zip(coco()["images"], domains, strict=True)])
    assert [image.domain for image in read_coco(write("nocaps.json", with_domains))] == list(domains)


def test_files_of_the_demo_world(write: Write) -> None:
    """What the world's writer means, found again in what it writes."""
    scenes = {split: list(split_scenes(split, 9, seed=1)) for split in ("val", "test", "nocaps")}
    nocaps = read_coco(write("nocaps.json", caption_json(scenes["nocaps"], domains=True)))
    for written, scene in zip(nocaps, scenes["nocaps"], strict=True):
        assert written.captions == scene.captions and written.domain == scene.domain
        assert (written.image_id, written.path) == (scene.image_id, scene.file_name)
    whole = write("dataset_emoji.json", karpathy_json(scenes["val"] + scenes["test"]))
    val, test = read_karpathy(whole, "val"), read_karpathy(whole, "test")
    assert [image.captions for image in test] == [scene.captions for scene in scenes["test"]]
    again = read_coco(write("captions_test.json", caption_json(scenes["test"])))
    check_split(paths_by_id(again), paths_by_id(test), file="captions_test.json", split="test")
    check_no_leak(paths_by_id(val), paths_by_id(test), train_file="val", held_out_file="test")
    with pytest.raises(ShardError, match="9 of its 9 images are not in val"):
        check_split(paths_by_id(again), paths_by_id(val), file="captions_test.json", split="val")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            coco(images=[*coco()["images"], {"id": 5, "file_name": "other.jpg"}]),
            "entry 3 of images has id 5, as entry 1 of images has",
        ),
        (coco(images=[*coco()["images"], {"id": 6}]), r"1 images have no caption \(first: 6\)"),
        (coco(images=[{"id": 3}]), "entry 2 of annotations is for image_id 5, which is not in images"),
        (coco(images=[{"id": None}]), "entry 1 of images: id None is neither number nor text"),
        (coco(images=[{"id": 3, "domain": "in-domain"}, {"id": 5}]), r"1 of 2 images have no domain \(first: 5\)"),
        (coco(images=[{"id": 3, "domain": "in"}, {"id": 5}]), "domain 'in' is none of in-domain, near-domain"),
        (coco(annotations=[*coco()["annotations"], coco()["annotations"][0]]), "caption id 1 comes twice"),
        (coco(annotations=[{"id": 1, "image_id": 3}]), "entry 1 of annotations: lacks 'caption'"),
        (
            coco(annotations=[{"id": 1, "image_id": 3, "caption": ["x"]}]),
            r"entry 1 of annotations: caption \['x'\] is no text",
        ),
        (coco(annotations=[]), "has no annotations"),
        ([{"image_id": 3, "caption": "a"}], "list of predictions, .* are predictions and annotations exchanged"),
        ([{"image": "3.jpg"}], "has no column 'caption' or"),
        ('{"images": [', r"is broken JSON \(Expecting value"),
        ("[]", "holds nothing"),
    ],
)
def test_broken_coco_files_are_one_clear_line(write: Write, content: Any, message: str) -> None:
    path = write("captions.json", content)
    with pytest.raises(ShardError, match=message) as caught:
        read_coco(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"image": "a/12.jpg", "caption": ["x"]}, {"image": "a/13.jpg"}], "entry 2: lacks 'caption'"),
        ([{"image": "a/12.jpg", "caption": [3]}], r"entry 1: caption is \[3\]; write a text, or a list of texts"),
        ([{"image": "a/12.jpg", "caption": None}], "entry 1: caption is None; write"),
        ([{"image": "a/12.jpg", "caption": [None]}], r"entry 1: caption is \[None\]; write"),
        (
            [{"image": "12.jpg", "caption": ["x"]}, {"image": "12.jpg", "caption": ["y"]}],
            "2: image '12.jpg' comes twice",
        ),
        (["12.jpg"], "entry 1: '12.jpg' is no object"),
        ({"images": []}, "is of the layout 'coco', not 'list'"),
    ],
)
def test_broken_lists_are_one_clear_line(write: Write, content: Any, message: str) -> None:
    with pytest.raises(ShardError, match=message) as caught:
        read_caption_list(write("coco_karpathy_test.json", content), "test")
    assert "\n" not in str(caught.value)


def test_broken_karpathy_files_are_one_clear_line(write: Write, tmp_path: Path) -> None:
    twice = write("twice.json", {"images": [karpathy(1, "val"), karpathy(1, "test"), karpathy(2, "val")]})
    assert len(read_karpathy(twice, "val")) == 2
    with pytest.raises(
        ShardError, match=r"twice\.json, entry 2 of images: image 1 comes twice \(.*, entry 1 of images\)"
    ):
        read_karpathy(twice, "val+test")
    with pytest.raises(ShardError, match="no image of split 'restval'; its splits are test, val"):
        read_karpathy(twice, "val+restval")
    with pytest.raises(ShardError, match="does not exist"):
        read_karpathy(tmp_path / "none.json", "val")
    with pytest.raises(ShardError, match="cannot be read"):
        read_karpathy(tmp_path, "val")


def test_images_are_identified_by_the_files_own_ids_not_by_digits_in_names(write: Write) -> None:
    rsicd = [karpathy(0, "test", filename=f"{name}_1.tif", imgid=n) for n, name in enumerate(("airport", "farm"))]
    own = [{key: value for key, value in entry.items() if key != "cocoid"} for entry in rsicd]
    assert [image.identity for image in read_karpathy(write("rsicd.json", {"images": own}), "test")] == [0, 1]
    bare = [{key: value for key, value in entry.items() if key != "imgid"} for entry in own]
    paths = ["val2014/airport_1.tif", "val2014/farm_1.tif"]
    assert [image.identity for image in read_karpathy(write("bare.json", {"images": bare}), "test")] == paths
    folders = [{"image": f"{folder}/12.jpg", "caption": ["x"]} for folder in "ab"]
    assert [one.identity for one in read_caption_list(write("l.json", folders), "test")] == ["a/12.jpg", "b/12.jpg"]
    named = coco(images=[{"id": "img_5"}], annotations=[{"id": 1, "image_id": "img_5", "caption": "five"}])
    assert [image.identity for image in read_coco(write("named.json", named))] == ["img_5"]


def test_a_leak_is_named() -> None:
    check_no_leak(images(1, 2), images(3), train_file="train", held_out_file="test")
    with pytest.raises(ShardError, match=r"2 of the 3 images of test are in train too \(first: 2 val2014/2.jpg, 1 "):
        check_no_leak(images(1, 2), images(2, 3, 1), train_file="train", held_out_file="test")


def test_a_wrong_split_is_named() -> None:
    check_split(images(2, 1), {1, 2}, file="f", split="test")
    with pytest.raises(ShardError, match=r"f is of another split: 1 of its 2 images are not in test \(first: 9 "):
        check_split(images(1, 9), [1, 2], file="f", split="test")
    with pytest.raises(ShardError, match=r"f lacks 2 of the 3 images of test \(first: 2, 3\)"):
        check_split(images(1), [1, 2, 3], file="f", split="test")


def test_missing_images_are_named(tmp_path: Path) -> None:
    (tmp_path / "val2014").mkdir()
    (tmp_path / "val2014" / "2.jpg").touch()
    assert missing_images([*images(1, 2, 3).values(), "train2014/5.jpg"], tmp_path) == [
        "val2014/1.jpg",
        "val2014/3.jpg",
        "train2014/5.jpg",
    ]
    with pytest.raises(ShardError, match="nowhere does not exist"):
        missing_images([], tmp_path / "nowhere")
