"""Question files of every format give the same kind of record, and what is wrong in them is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from blip2_train.data.annotations.columns import Columns
from blip2_train.data.annotations.questions import QuestionForm, read_questions
from blip2_train.data.annotations.visual_questions import VisualQuestion, named_image
from blip2_train.errors import ShardError


def read_vqa(questions: Path, annotations: Path | None = None) -> list[VisualQuestion]:
    return read_questions(questions, annotations, form="vqa", strict=True)


def read(path: Path, form: QuestionForm) -> list[VisualQuestion]:
    return read_questions(path, form=form, strict=True)


QUESTIONS = {
    "data_subtype": "train2014",
    "questions": [
        {"image_id": 458752, "question": "What is this photo taken looking through?", "question_id": 458752000},
        {"image_id": 458752, "question": "What position is this man playing?", "question_id": 458752001},
    ],
}
ANNOTATIONS = {
    "data_subtype": "train2014",
    "annotations": [
        {
            "question_type": "what",
            "multiple_choice_answer": "pitcher",
            "answers": [{"answer": a, "answer_id": i + 1} for i, a in enumerate(["pitcher"] * 9 + ["catcher"])],
            "image_id": 458752,
            "question_id": 458752001,
            "answer_type": "other",
        },
        {
            "question_type": "what is this",
            "answers": [{"answer": "net"}],
            "image_id": 458752,
            "question_id": 458752000,
            "answer_type": "other",
        },
    ],
}


def written(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def changed(content: dict[str, Any], key: str, index: int, **values: Any) -> dict[str, Any]:
    """The same file with other values in one entry; None removes a key."""
    entries = [dict(entry) for entry in content[key]]
    entries[index] = {name: value for name, value in {**entries[index], **values}.items() if value is not None}
    return {**content, key: entries}


def test_vqa_joins_questions_and_annotations_in_the_order_of_the_questions(tmp_path: Path) -> None:
    question_file, annotation_file = written(tmp_path, "q.json", QUESTIONS), written(tmp_path, "a.json", ANNOTATIONS)
    first, second = read_vqa(question_file, annotation_file)
    assert first.answers == ("net",)
    assert second == VisualQuestion(
        question_id=458752001,
        image_id=458752,
        image="",
        question="What position is this man playing?",
        answers=("pitcher",) * 9 + ("catcher",),
        question_type="what",
        answer_type="other",
    )
    assert [question.answers for question in read_vqa(question_file)] == [(), ()]


def test_visual_genome_in_both_forms(tmp_path: Path) -> None:
    official = [
        {"id": 7, "qas": [{"qa_id": 99, "image_id": 7, "question": "Who?", "answer": "A man.", "a_objects": []}]}
    ]
    listed = [{"image": "VG_100K/7.jpg", "question": "Who?", "answer": "A man.", "dataset": "vg"}] * 2
    result = read(written(tmp_path, "question_answers.json", official), "visual_genome")
    assert [(q.question_id, q.image_id, q.image, q.question, q.answers) for q in result] == [
        (99, 7, "", "Who?", ("A man.",))
    ]
    result = read(written(tmp_path, "vg_qa.json", listed), "visual_genome")
    assert [(q.question_id, q.image_id, q.image) for q in result] == [
        (0, "VG_100K/7.jpg", "VG_100K/7.jpg"),
        (1, "VG_100K/7.jpg", "VG_100K/7.jpg"),
    ]


def test_gqa_keeps_ids_as_texts_and_types(tmp_path: Path) -> None:
    types = {"structural": "query", "semantic": "rel", "detailed": "relS"}
    official = {
        "0733340": {"imageId": "n161313", "question": "Is it red?", "answer": "no", "types": types, "isBalanced": True},
        "201": {"imageId": "25", "question": "Which one?", "isBalanced": True},
    }
    first, second = read(written(tmp_path, "testdev_balanced_questions.json", official), "gqa")
    assert (first.question_id, first.image, first.answers) == ("0733340", "n161313.jpg", ("no",))
    assert (first.question_type, first.answer_type) == ("query", "rel")
    assert (second.answers, second.question_type) == ((), "")
    listed = [{"image": "n161313.jpg", "question": "Is it red?", "answer": "no", "question_id": "0733340"}]
    (third,) = read(written(tmp_path, "list.json", listed), "gqa")
    assert (third.question_id, third.image, third.answers) == ("0733340", "n161313.jpg", ("no",))


def test_the_released_codes_list_holds_ten_answers(tmp_path: Path) -> None:
    entry = {"question_id": 1, "question": "why?", "answer": ["a"] * 10, "image": "val2014/x.jpg", "dataset": "vqa"}
    path = written(tmp_path, "vqa_val.json", [entry])
    assert read(path, "list") == read_vqa(path)
    assert read_vqa(path)[0].answers == ("a",) * 10
    with pytest.raises(ShardError, match="holds its own answers"):
        read_vqa(path, path)


@pytest.mark.parametrize(
    ("question_file", "annotation_file", "message"),
    [
        (QUESTIONS, {**ANNOTATIONS, "data_subtype": "val2014"}, "q.json is of 'train2014', but .*a.json of 'val2014'"),
        (
            QUESTIONS,
            {**ANNOTATIONS, "annotations": ANNOTATIONS["annotations"][:1]},
            "question 458752000 has no annotat",
        ),
        ({**QUESTIONS, "questions": QUESTIONS["questions"][:1]}, ANNOTATIONS, "1 annotations without a question"),
        (QUESTIONS, changed(ANNOTATIONS, "annotations", 0, image_id=9), "question 458752001 is about image 458752"),
        (
            QUESTIONS,
            changed(ANNOTATIONS, "annotations", 0, question_id=458752000),
            "two annotations of question 458752",
        ),
        (QUESTIONS, changed(ANNOTATIONS, "annotations", 1, answers=None), "a.json, entry 2: lacks 'answers'"),
        (QUESTIONS, changed(ANNOTATIONS, "annotations", 1, answers=[]), "a.json, entry 2: lacks 'answers'"),
        (changed(QUESTIONS, "questions", 1, question=None), ANNOTATIONS, "q.json, entry 2: lacks 'question'"),
        (changed(QUESTIONS, "questions", 1, question=3), ANNOTATIONS, "q.json, entry 2: question 3 is no text"),
        (changed(QUESTIONS, "questions", 1, question_id=458752000), None, "question id 458752000 comes twice"),
        ({"annotations": []}, None, "q.json is not of the form"),
        ("{", None, "q.json is broken JSON"),
        ([], None, "q.json holds nothing"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, question_file: Any, annotation_file: Any, message: str) -> None:
    path = written(tmp_path, "q.json", question_file)
    with pytest.raises(ShardError, match=message):
        read_vqa(path, None if annotation_file is None else written(tmp_path, "a.json", annotation_file))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"none\.json does not exist"):
        read(tmp_path / "none.json", "gqa")


def test_misshapen_entries_of_other_formats_are_named(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"vg\.json, entry 1, qas 1: lacks 'qa_id'"):
        read(written(tmp_path, "vg.json", [{"id": 7, "qas": [{"question": "Who?"}]}]), "visual_genome")
    with pytest.raises(ShardError, match="entry '201': lacks 'imageId'"):
        read(written(tmp_path, "gqa.json", {"201": {"question": "Which?"}}), "gqa")
    with pytest.raises(ShardError, match=r"l\.json, entry 2: 'b' is no object"):
        read(written(tmp_path, "l.json", [{"image": "a.jpg", "question": "?", "answer": "x"}, "b"]), "list")


def listed(folder: Path, name: str, text: str, **columns: str) -> list[tuple[Any, ...]]:
    (folder / name).write_text(text, encoding="utf-8")
    result = read_questions(folder / name, columns=Columns(**columns), strict=True)
    return [(one.question_id, one.image_id, one.image, one.question, one.answers) for one in result]


def test_lines_tables_and_lists_with_any_spelling_of_answers(tmp_path: Path) -> None:
    expected = [(0, "a.jpg", "a.jpg", "how many?", ("2",)), (1, "b.jpg", "b.jpg", "where?", ("left", "right"))]
    for first, second in (
        ({"answer": 2}, {"answer": ["left", "right"]}),
        ({"answers": ["2"]}, {"answers": [{"answer": "left"}, {"answer": "right"}]}),
        ({"answer": 2.0}, {"direct_answers": ["left", "right"]}),
        ({"multiple_choice_answer": "2"}, {"answers": "['left', 'right']"}),
    ):
        entries = [
            {"image": "a.jpg", "question": "how many?"} | first,
            {"image": "b.jpg", "question": "where?"} | second,
        ]
        assert listed(tmp_path, "l.json", "\ufeff" + json.dumps(entries)) == expected
        assert listed(tmp_path, "l.jsonl", "\n".join(map(json.dumps, entries))) == expected
    table = "bild,frage,antwort,nr\na.jpg,how many?,2,7\nb.jpg,where?,\"['left', 'right']\",x\n"
    columns = {"image": "bild", "question": "frage", "answer": "antwort"}
    assert listed(tmp_path, "t.csv", table, **columns) == expected
    assert [one[0] for one in listed(tmp_path, "t.csv", table, **columns, id="nr")] == [7, "x"]
    with pytest.raises(
        ShardError, match="no column 'question' or 'text'; its columns are 'bild', 'frage', 'antwort', 'nr'"
    ):
        listed(tmp_path, "t.csv", table)
    with pytest.raises(ShardError, match=r"no column 'answers'; its columns are .* answer_column=<column>"):
        listed(tmp_path, "t.csv", table, **(columns | {"answer": "answers"}))


def test_textvqa_in_lines_of_llava_joins_its_annotations(tmp_path: Path) -> None:
    lines = json.dumps({"question_id": "003a8ae2ef43b901", "image": "a.jpg", "text": "what?\nReference OCR token: A"})
    annotation_file = {"data": [{"question_id": "003a8ae2ef43b901", "image_id": "a", "answers": ["A"] * 10}]}
    question_file = written(tmp_path, "q.jsonl", lines)
    (bare,), (result,) = (
        read_questions(question_file),
        read_questions(question_file, written(tmp_path, "a.json", annotation_file), strict=True),
    )
    assert (bare.answers, result.answers, result.question) == ((), ("A",) * 10, "what?\nReference OCR token: A")


def test_bare_lists_of_vqa_cp(tmp_path: Path) -> None:
    question_file, annotation_file = (
        written(tmp_path, "q.json", QUESTIONS["questions"]),
        written(tmp_path, "a.json", ANNOTATIONS["annotations"]),
    )
    whole = read_vqa(written(tmp_path, "qo.json", QUESTIONS), written(tmp_path, "ao.json", ANNOTATIONS))
    assert read_vqa(question_file, annotation_file) == whole and [one.answers for one in read_vqa(question_file)] == [
        (),
        (),
    ]


def test_training_counts_what_evaluation_refuses(tmp_path: Path) -> None:
    question_file = written(tmp_path, "q.json", QUESTIONS)
    few = written(tmp_path, "a.json", {"annotations": ANNOTATIONS["annotations"][:1]})
    assert [len(one.answers) for one in read_questions(question_file, few)] == [0, 10]
    with pytest.raises(ShardError, match="question 458752000 has no annotation"):
        read_questions(question_file, few, strict=True)


def test_visual_genome_1_0_is_flat(tmp_path: Path) -> None:
    flat = [{"id": 900, "image": 7, "question": "What is there?", "answer": "A square."}]
    (one,) = read(written(tmp_path, "vg.json", flat), "visual_genome")
    assert (one.question_id, one.image_id, one.image, one.answers) == (900, 7, "", ("A square.",))


def test_names_of_images_from_their_ids() -> None:
    assert named_image("COCO_{image_id:012d}.jpg", 7) == named_image("COCO_{image_id:012d}.jpg", "7")
    assert named_image("{image_id}.jpg", "0042") == "0042.jpg"
    with pytest.raises(ShardError, match=r"picture_name .* needs a number, but the questions are about image 'n16'"):
        named_image("{image_id:06d}.jpg", "n16")
