"""Small valid files of each layout of captions, questions and results."""

from __future__ import annotations

import json
from typing import Any

_NOTES = [{"id": n, "image_id": n // 2, "caption": f"a cat {n}"} for n in range(6)]
_IMAGES = [{"id": n, "file_name": f"{n}.jpg", "height": 3, "width": 4} for n in range(3)]
_SENTENCES = [{"raw": "a cat", "tokens": ["a", "cat"], "sentid": 1}]
_ANSWERS = [{"answer": "yes", "answer_id": k} for k in range(3)]
_QUESTIONS = [{"question_id": n, "image_id": n, "question": "is it?"} for n in range(3)]
_ANNOTATIONS = [{"question_id": n, "image_id": n, "answers": _ANSWERS, "answer_type": "yes/no"} for n in range(3)]


def _json(name: str, content: Any) -> tuple[str, bytes]:
    return name, json.dumps(content).encode()


def _lines(name: str, entries: list[Any]) -> tuple[str, bytes]:
    return name, "".join(json.dumps(entry) + "\n" for entry in entries).encode()


_ROWS = [{"image": f"{n}.jpg", "caption": ["a cat", "cats"] if n else "a dog", "image_id": n} for n in range(3)]
CAPTIONS = [
    _json("coco.json", {"images": _IMAGES, "annotations": _NOTES}),
    _json(
        "karpathy.json",
        {
            "images": [
                {"filename": f"{n}.jpg", "filepath": "a", "cocoid": n, "split": "train", "sentences": _SENTENCES}
                for n in range(3)
            ]
        },
    ),
    _json("regions.json", [{"id": n, "regions": [{"image_id": n, "phrase": "a cat"}]} for n in range(3)]),
    _json("rows.json", _ROWS),
    _json("list.json", [row | {"split": "train"} for row in _ROWS]),
    _lines("lines.jsonl", _ROWS),
]
TABLES = [
    ("a.csv", b'image,caption\n1.jpg,"a ""cat"""\n2.jpg,"[""a"", ""b""]"\n'),
    ("a.tsv", "filepath\tcaption\n1.jpg\ta cat\n2.jpg\ta dog – café\n".encode()),
    ("flickr.token", b"1.jpg#0\ta cat\n1.jpg#1\tcats\n2.jpg#0\ta dog\n"),
    ("pipes.csv", b"image_name| comment_number| comment\n1.jpg| 0| a cat\n1.jpg| 1| cats\n"),
]
QUESTIONS = [
    _json("questions.json", {"data_subtype": "val2014", "questions": _QUESTIONS}),
    _json("annotations.json", {"data_subtype": "val2014", "annotations": _ANNOTATIONS}),
    _json("list.json", [{"question_id": 1, "image": "5.jpg", "question": "is it?", "answers": ["yes", "no"]}] * 1),
    _json("genome.json", [{"id": 5, "qas": [{"qa_id": 1, "question": "is it?", "answer": "Yes."}]}]),
    _json("flat.json", [{"id": n, "image": n, "question": "is it?", "answer": "Yes."} for n in range(3)]),
    _json(
        "gqa.json",
        {
            str(n): {"imageId": f"n{n}", "question": "?", "answer": "yes", "types": {"semantic": "obj"}}
            for n in range(3)
        },
    ),
    _lines("lines.jsonl", [{"question_id": n, "image": "1.jpg", "question": "a?", "answer": "b"} for n in range(3)]),
]
RESULTS = [
    _json("captions.json", [{"image_id": n, "caption": f"a cat {n}"} for n in range(3)]),
    _lines("captions.jsonl", [{"image_id": n, "caption": f"a cat {n}"} for n in range(3)]),
    _json("answers.json", [{"question_id": n, "answer": "yes"} for n in range(3)]),
    _json("list.json", ["yes", "no", "2"]),
    ("list.txt", b"yes\nno\n2\n"),
]
