"""Annotation files of every layout say the same of the same images, and broken ones say where."""

from __future__ import annotations

import base64
import json
import pickle
from pathlib import Path

import pytest
from caption_files import LAYOUTS, as_coco, as_csv, as_karpathy, as_lines, rows, write_images
from shard_files import image

from blip2_train.data.annotations.captions import read_captions, read_references
from blip2_train.data.annotations.columns import Columns
from blip2_train.data.prepare.examination import read_exclusions
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.sources.config import SourceConfig, open_source
from blip2_train.errors import ShardError


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_images(layout: str, tmp_path: Path) -> None:
    write_images(tmp_path, 4)
    file = LAYOUTS[layout](tmp_path / "captions", rows(4, captions=3))
    split = "train" if layout == "karpathy" else None
    source = open_source(SourceConfig(path=str(file), split=split))
    assert len(source) == 4 and source.name == "captions"
    for index in range(4):
        record = source.read(index)
        assert record.captions == tuple(text for _, text, other in rows(4, captions=3) if other == 100 + index)
        assert record.image == (tmp_path / f"p{index:02d}.jpg").read_bytes()
        assert source.sample_location(index).key == f"p{index:02d}.jpg" and source.sample_location(index).row
    ids = [source.read(index).image_id for index in range(4)]
    assert len(set(ids)) == 4 and (layout == "list" or ids == [100, 101, 102, 103])


def test_columns_folder_and_splits_can_be_named(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 2)
    file = tmp_path / "mine.tsv"
    file.write_text('datei\tworte\tsplit\np00.jpg\t"a, b"\ttrain\np01.jpg\tc\tval\n', encoding="utf-8")
    columns = {"picture_column": "datei", "caption_column": "worte"}
    source = open_source(SourceConfig(path=str(file), images=str(tmp_path / "images"), split="val", **columns))  # type: ignore[arg-type]
    assert len(source) == 1 and source.read(0).captions == ("c",)
    absolute = as_csv(tmp_path / "absolute", [(str(tmp_path / "images" / "p01.jpg"), "c", 1)])
    assert open_source(SourceConfig(path=str(absolute))).read(0).image


def test_lines_in_a_json_file_semicolons_and_lists_of_captions(tmp_path: Path) -> None:
    (tmp_path / "lines.json").write_text(
        '{"image": "a.jpg", "caption": ["x", "y"]}\n{"image": "b.jpg", "caption": "z"}'
    )
    assert [p.captions for p in read_captions(tmp_path / "lines.json", None)] == [("x", "y"), ("z",)]
    (tmp_path / "excel.csv").write_text("\ufeffimage;caption\na.jpg;one, two\n", encoding="utf-8")
    (result,) = read_captions(tmp_path / "excel.csv", None)
    assert (result.row, result.path, result.captions, result.image_id) == ("line 2", "a.jpg", ("one, two",), None)


def test_rows_are_read_again_where_they_stand(tmp_path: Path) -> None:
    table = tmp_path / "odd.csv"
    table.write_bytes(
        '\ufeff"ima\nge",file_name,caption\r\n,a.jpg,"two\nlines, ""quoted"""\r\n\r\n,b.jpg,x\u2028y\n\n'
        ",a.jpg,again\n,c.jpg,last".encode()
    )
    lines = tmp_path / "odd.jsonl"
    entries = [("a.jpg", 'two\nlines, "quoted"'), ("b.jpg", "x\u2028y"), ("a.jpg", "again"), ("c.jpg", "last")]
    written = [json.dumps({"file_name": name, "caption": text}, ensure_ascii=False) for name, text in entries]
    lines.write_text("\ufeff" + "\r\n\n".join(written), encoding="utf-8")
    expected = [("a.jpg", ('two\nlines, "quoted"', "again")), ("b.jpg", ("x\u2028y",)), ("c.jpg", ("last",))]
    for file, rows_of in ((table, ["line 4", "line 6", "line 9"]), (lines, ["line 1", "line 3", "line 7"])):
        images = read_captions(file, None)
        assert [(one.path, one.captions) for one in images] == expected
        assert [images[index].row for index in (2, 1, 0)] == rows_of[::-1]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_trains_is_evaluated(layout: str, tmp_path: Path) -> None:
    file = LAYOUTS[layout](tmp_path / "captions", rows(4, captions=3))
    split = "train" if layout == "karpathy" else None
    trained, evaluated = read_captions(file, split), read_references(file, split)
    assert [(one.path, one.captions) for one in evaluated] == [(one.path, one.captions) for one in trained]
    assert [one.identity for one in evaluated] == [100, 101, 102, 103]


def test_ids_may_have_a_column_of_their_own(tmp_path: Path) -> None:
    write_images(tmp_path, 2)
    file = tmp_path / "mine.csv"
    file.write_text("image,caption,nummer\np00.jpg,a,7\np01.jpg,b,img_8\n")
    source = open_source(SourceConfig(path=str(file), id_column="nummer"))
    assert source.read(0).image_id == 7
    assert [one.identity for one in read_references(file, columns=Columns(id="nummer"))] == [7, "img_8"]
    with pytest.raises(
        ShardError, match=r"no column 'id'; its columns are 'image', 'caption', 'nummer'.*data.id_column="
    ):
        open_source(SourceConfig(path=str(file), id_column="id"))


def test_marks_lines_and_lists_whatever_the_name(tmp_path: Path) -> None:
    entries = [{"image": "a.jpg", "caption": "x"}, {"image": "b.jpg", "caption": "y"}]
    listed, lines = json.dumps(entries, indent=1), "\n".join(map(json.dumps, entries))
    for name in ("f.json", "f.jsonl"):
        for text in (listed, lines, "\ufeff" + listed, "\ufeff" + lines):
            (tmp_path / name).write_text(text, encoding="utf-8")
            assert [one.path for one in read_captions(tmp_path / name)] == ["a.jpg", "b.jpg"]
            assert [one.path for one in read_references(tmp_path / name)] == ["a.jpg", "b.jpg"]


def test_a_counted_id_is_no_identity_in_other_files(tmp_path: Path) -> None:
    """Two of Karpathy's sets count their images from 0; without COCO's ids, the path tells them apart."""
    result = []
    for name in ("flickr8k", "flickr30k"):
        folder = tmp_path / name
        write_images(folder, 1)
        images = [{"filename": "p00.jpg", "split": "test", "imgid": 0, "sentences": [{"raw": "a"}]}]
        (folder / f"{name}.json").write_text(json.dumps({"images": images}))
        file = str(folder / f"{name}.json")
        result.append(open_source(SourceConfig(path=file, split="test")).read(0).image_id)
        assert read_references(file, "test")[0].identity == 0 and read_exclusions([file], "test") == {"p00.jpg"}
    assert len({*result, 0}) == 3


@pytest.mark.parametrize("layout", ["csv", "lines"])
def test_only_the_offsets_of_rows_are_kept(layout: str, tmp_path: Path) -> None:
    images = read_captions(LAYOUTS[layout](tmp_path / "many", rows(2000, captions=2)), None)
    assert len(images) == 2000 and len(pickle.dumps(images)) < 30 * 4000


def test_a_row_may_hold_the_image_itself(tmp_path: Path) -> None:
    files = [image((n, 0, 90), form=form) for n, form in enumerate(("JPEG", "PNG", "WEBP", "GIF"))]
    files[0] += bytes(200_000)  # more than a cell may have by default
    texts = [base64.b64encode(file).decode() for file in files]
    texts[1] = f"data:image/png;base64,{texts[1]}"
    content = [(text, f"a {letter}", 100 + n) for n, (text, letter) in enumerate(zip(texts, "bcde", strict=True))]
    for file in (as_csv(tmp_path / "rows", [*content, content[0]]), as_lines(tmp_path / "rows", content)):
        source = open_source(SourceConfig(path=str(file)))
        assert [source.read(index).image for index in range(len(source))] == files
        assert source.read(0).captions == (("a b", "a b") if file.suffix == ".csv" else ("a b",))
        assert source.sample_location(2).key == ("line 4" if file.suffix == ".csv" else "line 3")
    as_csv(tmp_path / "cut", [(texts[0][:-1], "a", 1)])
    with pytest.raises(UnusableSample, match="no base64"):
        open_source(SourceConfig(path=str(tmp_path / "cut.csv"))).read(0)


BROKEN = {
    "no such column": (
        "a.csv",
        "file,caption\na.jpg,x\n",
        "has no column 'image' or .*'file', 'caption'.*picture_column",
    ),
    "a comma in a caption": ("a.csv", "image,caption\na.jpg,x\nb.jpg,x, y\n", "line 3: not as many values.*quotes"),
    "too few values": ("a.csv", "image,caption\na.jpg\n", "line 2: not as many values"),
    "no path": ("a.csv", "image,caption\n,x\n", "line 2: image is ''"),
    "no rows": ("a.csv", "image,caption\n", "has no rows"),
    "no text": ("a.jsonl", '{"image": "a.jpg", "caption": 3}', "line 1: caption is .*3"),
    "a torn line": ("a.jsonl", '{"image": "a.jpg", "caption": "x"}\n{"image"', "line 2: no valid JSON"),
    "no object": ("a.json", '["a.jpg"]', "entry 1: 'a.jpg' is no object"),
    "another object": ("a.json", '{"pictures": []}', "no known layout"),
    "one id for two images": (
        "a.csv",
        "image,caption,image_id\na.jpg,x,7\nb.jpg,y,7\n",
        r"line 3: image_id '7' of b.jpg is that of a.jpg \(line 2\); give each image its own",
    ),
    "two ids for one image": (
        "a.csv",
        "image,caption,image_id\na.jpg,x,7\na.jpg,y,8\n",
        "line 3: a.jpg has image_id",
    ),
    "addresses": ("cc.tsv", "a bus station\thttp://x.org/a.jpg\nb\thttp://x.org/b.jpg\n", "tsv lists addresses.*img2d"),
    "addresses beside images, where captions are what is missing": (
        "a.csv",
        "image,words,url\na.jpg,x,https://x.org/a.jpg\n",
        "has no column 'caption' or .*; its columns are 'image', 'words', 'url'",
    ),
    "chats of LLaVA": (
        "chat.json",
        '[{"id": "0", "image": "a.jpg", "conversations": [{"from": "human", "value": "Describe it."}]}]',
        r'holds conversations .LLaVA.s layout., not captions .*; what can be read .*"image": …, "caption": …',
    ),
    "questions": ("q.json", '[{"image": "a.jpg", "question": "?", "answer": "x"}]', "holds questions, not captions"),
    "an address": (
        "a.csv",
        "image,caption\nhttps://x.org/a.jpg,x\n",
        "line 2: image is the address https.*img2",
    ),
    "addresses of SBU": (
        "sbu-captions-all.json",
        '{"image_urls": ["http://x.org/a.jpg"], "captions": ["x"], "user_names": ["y"]}',
        r"sbu-captions-all.json lists addresses of images: download .* with img2dataset first, and give the tar",
    ),
    "a split that is not there": ("a.csv", "image,caption\na.jpg,x\n", "has no splits"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_say_where_and_what_to_do(name: str, tmp_path: Path) -> None:
    file, content, message = BROKEN[name]
    (tmp_path / file).write_text(content)
    with pytest.raises(ShardError, match=message) as caught:
        read_captions(tmp_path / file, "val" if name.startswith("a split") else None)
    assert str(tmp_path / file) in str(caught.value) and "\n" not in str(caught.value)


def test_broken_coco_files_say_where(tmp_path: Path) -> None:
    content = json.loads(as_coco(tmp_path / "whole", rows(3)).read_text())
    changes = {
        "id 100, as entry 1 of images has": {"images": [*content["images"], content["images"][0]]},
        "entry 1 of annotations is for image_id 9, which is not": {"annotations": [{"image_id": 9, "caption": "x"}]},
        "entry 1 of annotations: lacks 'caption', so these are no COCO captions": {
            "annotations": [{"image_id": 100, "bbox": []}]
        },
    }
    for message, change in changes.items():
        (tmp_path / "broken.json").write_text(json.dumps(content | change))
        with pytest.raises(ShardError, match=message):
            read_captions(tmp_path / "broken.json", None)
    twice = json.loads(as_karpathy(tmp_path / "karpathy", rows(2)).read_text())
    twice["images"][1]["cocoid"] = 100
    (tmp_path / "twice.json").write_text(json.dumps(twice))
    with pytest.raises(ShardError, match="entry 2 of images: image_id 100"):
        read_captions(tmp_path / "twice.json", "train")
