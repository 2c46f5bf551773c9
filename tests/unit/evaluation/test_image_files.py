"""The images of a task are found wherever they are found in training: in folders, and in the annotations themselves."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from caption_files import as_csv, rows, write_pictures
from shard_files import picture

from blip2_train.data.question_source import QuestionSource, QuestionSourceConfig
from blip2_train.errors import ConfigError, ShardError
from blip2_train.evaluation.official_tasks import answering_task, captioning_task, retrieval_task

FILES = [picture((9, 99, 200), form=form) for form in ("JPEG", "PNG")]
CELLS = [base64.b64encode(FILES[0]).decode(), "data:image/png;base64," + base64.b64encode(FILES[1]).decode()]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_images_in_the_file_itself(tmp_path: Path) -> None:
    write_pictures(tmp_path, 1)
    file = as_csv(tmp_path / "own", [(CELLS[0], "a", 1), (CELLS[1], "b", 2), ("p00.jpg", "c", 3)])
    for make in (captioning_task, retrieval_task):
        task = make(name="own", title="Own", annotations=str(file))
        read = [(task.folder / one.path).read_bytes() for one in task.pictures]
        assert read == [*FILES, (tmp_path / "p00.jpg").read_bytes()]
        assert [one.identity for one in task.pictures] == [1, 2, 3]
    as_csv(tmp_path / "cut", [(CELLS[0][:-1], "a", 1)])
    with pytest.raises(ShardError, match=r"task own: picture /9j/.* cannot be read .no base64"):
        captioning_task(name="own", title="Own", annotations=str(tmp_path / "cut.csv"))


def test_questions_about_images_in_the_file_itself(tmp_path: Path) -> None:
    entries = [{"image": cell, "question": "is it?", "answer": ["yes", "no"]} for cell in CELLS]
    file = tmp_path / "own.json"
    file.write_text(json.dumps(entries))
    task = answering_task(name="own", title="Own", questions=str(file))
    assert [path.read_bytes() for path in task.paths(0)] == FILES
    source = QuestionSource(QuestionSourceConfig(path=str(file), images=str(tmp_path), format="list"))
    assert [source.read(number).picture for number in (0, 1)] == FILES


def test_several_folders_as_visual_genomes(tmp_path: Path) -> None:
    write_pictures(tmp_path / "VG_100K", 1)
    write_pictures(tmp_path / "VG_100K_2", 3)
    file, folders = as_csv(tmp_path / "own", rows(3)), str(tmp_path / "VG_100K*")
    task = captioning_task(name="own", title="Own", annotations=str(file), images=folders)
    assert [path.parent.name for path in task.paths(0)] == ["VG_100K", "VG_100K_2", "VG_100K_2"]
    asked = [{"question_id": n, "image_id": n, "question": "is it?", "answer": "yes"} for n in range(3)]
    (tmp_path / "q.json").write_text(json.dumps(asked))
    common = {"name": "own", "title": "Own", "questions": str(tmp_path / "q.json"), "images": folders}
    asking = answering_task(**common, picture_name="p{image_id:02d}.jpg")
    assert asking.paths(0) == task.paths(0)
    other = as_csv(tmp_path / "other", [*rows(2), ("p3.png", "c", 9)])
    with pytest.raises(ShardError, match=r"1 of 3 pictures are not in .*VG_100K\* .first: p3.png"):
        captioning_task(name="own", title="Own", annotations=str(other), images=folders)


def test_what_is_no_image_is_said(tmp_path: Path) -> None:
    (tmp_path / "gt.json").write_text(
        json.dumps({"images": [{"id": 5}], "annotations": [{"id": 1, "image_id": 5, "caption": "a"}]})
    )
    with pytest.raises(ConfigError, match="entry 1 of images does not say which file is the picture"):
        captioning_task(name="own", title="Own", annotations=str(tmp_path / "gt.json"))
    as_csv(tmp_path / "texts", [("a text " * 99, "a", 1), ("a/" * 999 + "b.jpg", "c", 2)])
    with pytest.raises(ShardError, match="2 of 2 pictures are not in"):
        captioning_task(name="own", title="Own", annotations=str(tmp_path / "texts.csv"))
