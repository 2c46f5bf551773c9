"""Files of captions, questions and predictions that are broken, of another kind, or for something else."""

from __future__ import annotations

import json
from typing import Any

from fault_test.desk import Desk
from fault_test.table import refused, row

GROUP = "annotations"
ESCAPES = "a red cat \x1b[2J on the dog and the green cat \u202e\x9b1m and a blue dog of the red cat on the dog"
"""Clears the screen, sets a colour, and turns the direction of text, on a terminal that gets it as it is."""


def file(desk: Desk, name: str, content: Any) -> list[object]:
    """Arguments of a training on a file of captions."""
    (desk.folder / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return desk.captions(desk.folder / name)


def captions(name: str, file_name: str, content: Any, words: str, command: str = "train") -> None:
    refused(GROUP, name, command, lambda desk: file(desk, file_name, content), words)


captions("captions that are no JSON", "a.json", "{broken", r"a\.json")
captions("captions too deep to be read", "a.json", "[" * 100_000, r"a\.json")
captions("an id of 5,000 digits", "a.json", '[{"image": "1.jpg", "caption": ' + "1" * 5000 + "}]", r"a\.json")
captions("a number as a list of captions", "a.json", {"annotations": 7, "images": []}, r"a\.json")
captions("half a line of JSON", "a.jsonl", '{"image": "1.jpg", "caption": "a"}\n{"image": "2.j', r"a\.jsonl.*2")
captions("a table without known columns", "a.csv", "x,y\n1,2\n", r"a\.csv")
captions("an empty table", "a.csv", "", r"a\.csv")
captions("conversations", "a.json", [{"id": "1", "image": "1.jpg", "conversations": []}], r"conversations")
captions("predictions as captions", "a.json", [{"question_id": 1, "answer": "x"}], r"a\.json", "check")
captions("a parquet file that is none", "a.parquet", "PAR1 and no more", r"a\.parquet")
captions("images that are not there", "a.jsonl", '{"image": "none.jpg", "caption": "a"}\n' * 20, r"a\.jsonl|none|image")


def score(*arguments: str) -> Any:
    """Arguments of score; names are files of the world's `coco`, unless they begin with a dash."""
    return lambda d: [a if a.startswith("-") or a in ("captions", "vqa") else d.world.coco / a for a in arguments]


PART = ("captions", "--predictions", "results_part.json", "--annotations", "annotations.json")
refused(GROUP, "predictions for a part", "score", score(*PART), "16 .*have references but no caption")
refused(
    GROUP,
    "annotations that are not there",
    "score",
    score("captions", "--predictions", "results.json", "--annotations", "none.json"),
    r"none\.json",
)


@row(GROUP, "predictions of wrong types")
def wrong_predictions(desk: Desk) -> str:
    path = desk.folder / "p.json"
    path.write_text('[{"image_id": [1], "caption": "a"}, {"image_id": 2}]')
    files = ("--predictions", path, "--annotations", desk.world.coco / "annotations.json")
    return desk.refused("score", "captions", *files, words=r"p\.json")


@row(GROUP, "questions without answers")
def no_answers(desk: Desk) -> str:
    files = (
        "--questions",
        desk.world.questions / "cp_questions.json",
        "--predictions",
        desk.world.questions / "results.json",
    )
    return desk.refused("score", "vqa", *files, words="24 questions of .* have no answers")


@row(GROUP, "an evaluation of annotations that are none")
def evaluated(desk: Desk) -> str:
    (desk.folder / "notes.json").write_text('{"images": [{"id": 1}], "annotations": "many"}')
    task = f"tasks.own_captions.annotations={desk.folder / 'notes.json'}"
    run = (f"checkpoint={desk.world.opt}", "device=cpu", f"paths.run_dir={desk.folder / 'evaluation'}")
    return desk.refused("evaluate", "evaluation=own_captions", task, *run, words=r"notes\.json")


@row(GROUP, "captions that would move the terminal's cursor")
def escapes(desk: Desk) -> str:
    images = sorted((desk.world.questions / "images").glob("*.jpg"))
    lines = [json.dumps({"image": str(path), "caption": ESCAPES}) for path in images]
    arguments = file(desk, "e.jsonl", "\n".join(lines))
    ended = desk.well("check", *arguments)
    assert "cat" in ended.out, "check does not show the captions"
    return f"{ended.code}, shown without control characters"


@row(GROUP, "a file whose name holds line ends and escapes")
def odd_file_name(desk: Desk) -> str:
    arguments = file(desk, "no\nerror: all is well\x1b[2J.json", "{broken")
    return desk.refused(
        "check",
        *[
            f"data.source='{a.partition('=')[2]}'" if str(a).startswith("data.source") else a
            for a in map(str, arguments)
        ],
        words="no.*all is well",
    )
