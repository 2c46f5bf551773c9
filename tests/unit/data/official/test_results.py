"""Files of predictions: read and written in the formats of the evaluation servers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from blip2_train.data.annotations.captions import read_references
from blip2_train.data.annotations.results import ANSWERS, CAPTIONS, GQA_ANSWERS, read_results
from blip2_train.data.official.results import write_answer_results, write_caption_results
from blip2_train.errors import ConfigError, ShardError


def test_captions_come_back_as_they_were(tmp_path: Path) -> None:
    captions = {7: 'a "dog"\n\u2028', 3: "", 11: "café 😀"}
    path = tmp_path / "new" / "captions_val2014_ours_results.json"
    write_caption_results(path, captions, [3, 7, 11])
    assert json.loads(path.read_text()) == [{"image_id": key, "caption": captions[key]} for key in (3, 7, 11)]
    assert read_results(path, CAPTIONS) == captions and list(read_results(path, CAPTIONS)) == [3, 7, 11]


def test_a_submission_to_nocaps_has_every_image(tmp_path: Path) -> None:
    info = tmp_path / "nocaps_val_image_info.json"
    info.write_text(json.dumps({"images": [{"id": key, "file_name": f"{key}.jpg"} for key in (4, 0, 2)]}))
    expected = [image.identity for image in read_references(info)]
    write_caption_results(tmp_path / "x.json", {0: "a", 2: "b", 4: "c"}, expected)
    assert [entry["image_id"] for entry in json.loads((tmp_path / "x.json").read_text())] == [4, 0, 2]
    with pytest.raises(ConfigError, match=r"1 images have a position in the split but no caption \(first: 4\)"):
        write_caption_results(tmp_path / "y.json", {0: "a", 2: "b"}, expected)
    with pytest.raises(ConfigError, match="1 images have a caption but no position in the split"):
        write_caption_results(tmp_path / "y.json", {0: "a", 2: "b", 4: "c", 9: "d"}, expected)
    assert not (tmp_path / "y.json").exists()


def test_answers_are_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "vqa_OpenEnded_mscoco_test2015_ours_results.json"
    write_answer_results(path, {262144002: "yes", 1: "2"}, [1, 262144002])
    before = path.read_text()
    assert json.loads(before) == [{"question_id": 1, "answer": "2"}, {"question_id": 262144002, "answer": "yes"}]
    with pytest.raises(ConfigError, match=r"1 questions have a position in the split but no answer \(first: 8\)"):
        write_answer_results(path, {1: "2"}, [1, 8])
    with pytest.raises(TypeError):  # an answer that JSON cannot hold, met half way
        write_answer_results(path, {1: "yes", 2: b"no"}, [1, 2])  # type: ignore[dict-item]
    assert path.read_text() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"image_id": 1, "caption": "a"}, {"image_id": 1, "caption": "b"}], "image_id 1 comes twice; keep one"),
        ([{"image_id": 1}], "results.json, entry 1: lacks 'caption'"),
        ([{"image_id": 1, "caption": None}], "entry 1: caption None is no text"),
        ([{"image_id": True, "caption": "a"}], "id True is neither number nor text"),
        ([{"image_id": 1.5, "caption": "a"}], "id 1.5 is neither"),
        ([[1, "a"]], r"entry 1: \[1, 'a'\] is no object"),
        ({"images": [], "annotations": []}, "is an annotation or question file, .* exchanged"),
        ({"1": "a"}, "is not a list of predictions"),
    ],
)
def test_broken_predictions_are_one_clear_line(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ShardError, match=message) as caught:
        read_results(path, CAPTIONS)
    assert "\n" not in str(caught.value)


def test_answers_of_vqa_and_gqa(tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    path.write_text('[{"question_id": 5, "answer": "yes", "image_id": 3}]')
    assert read_results(path, ANSWERS) == {5: "yes"}
    path.write_text('[{"questionId": "0075", "prediction": "table"}]')
    assert read_results(path, GQA_ANSWERS) == {"0075": "table"}
    with pytest.raises(ShardError, match="lacks 'question_id'"):
        read_results(path, ANSWERS)


def test_lines_tables_numbers_and_broken_marks(tmp_path: Path) -> None:
    entries = [{"image_id": 1, "caption": "a \ud83d", "id": 0}, {"image_id": "img_2", "caption": "b", "id": 1}]
    (tmp_path / "r.jsonl").write_text("\ufeff" + "\n".join(map(json.dumps, entries)), encoding="utf-8")
    (tmp_path / "r.json").write_text(json.dumps(entries))
    (tmp_path / "r.csv").write_text("image_id,caption\n1,a \nimg_2,b\n")
    for name in ("r.jsonl", "r.json", "r.csv"):
        assert read_results(tmp_path / name, CAPTIONS) == {1: "a ", "img_2": "b"}
    (tmp_path / "r.json").write_text('[{"question_id": 1, "answer": 2}, {"question_id": 2, "answer": 2.5}]')
    assert read_results(tmp_path / "r.json", ANSWERS) == {1: "2", 2: "2.5"}
    (tmp_path / "r.json").write_text('[{"image_id": 1, "caption": 2}]')
    with pytest.raises(ShardError, match=r"r\.json, entry 1: caption 2 is no text"):
        read_results(tmp_path / "r.json", CAPTIONS)
