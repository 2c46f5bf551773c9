"""What the record of a sample says of its image, and that every reader of shards turns it so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from shard_files import encode, write_tar

from blip2_train.data.batches.images import decode_image
from blip2_train.data.batches.transforms import EvalTransform, TrainTransform
from blip2_train.data.prepare.opening import open_pairs
from blip2_train.data.shards.sample_files import orientation_of, without_orientation
from blip2_train.data.sources.holdout import TrainingSource
from blip2_train.data.sources.question_source import QuestionSource, QuestionSourceConfig
from blip2_train.data.sources.shard_source import ShardSource
from blip2_train.data.stream.inspection import inspect_samples
from blip2_train.data.stream.stream import EvaluationItems, TrainingStream

WORDS = {
    "Horizontal (normal)": 1,
    "Mirrored horizontal": 2,
    "Rotated 180": 3,
    "Mirrored vertical": 4,
    "Mirrored horizontal then rotated 90 CCW": 5,
    "Rotated 90 CW": 6,
    "Mirrored horizontal then rotated 90 CW": 7,
    "Rotated 90 CCW": 8,
}
"""Of exifread's table of tag 0x0112."""


def _record(orientation: Any, **more: Any) -> bytes:
    exif = json.dumps({"Image Make": "a", "Image Orientation": orientation, "Thumbnail Orientation": "Rotated 180"})
    return json.dumps({"caption": "a cat", "exif": exif, **more}).encode()


@pytest.mark.parametrize("words", WORDS)
def test_the_values_of_exifread(words: str) -> None:
    assert orientation_of(_record(words)) == WORDS[words]
    upright = without_orientation(json.loads(_record(words))["exif"])
    assert orientation_of(json.dumps({"exif": upright}).encode()) == 1 and json.loads(upright)["Image Make"] == "a"


@pytest.mark.parametrize(
    "record",
    [
        None,
        b"{",
        b"[]",
        _record("0"),
        _record(6),
        b'{"exif": null}',
        b'{"exif": "{}"}',
        b'{"exif": "{"}',
        b'{"exif": [1]}',
    ],
)
def test_records_that_say_nothing_of_it(record: bytes | None) -> None:
    assert orientation_of(record) is None
    assert without_orientation("{}") == "{}" and without_orientation(None) is None


def _photograph() -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def _sources(folder: Path) -> tuple[ShardSource, ShardSource]:
    """A shard as img2dataset leaves it, of a photograph to be turned clockwise, and one of it upright."""
    turned = encode(_photograph(), "PNG")
    upright = encode(_photograph().transpose(Image.Transpose.ROTATE_270), "PNG")
    about = {"width": 60, "height": 40, "original_width": 600, "original_height": 400, "image_id": 7}
    for name, data, orientation in (("turned", turned, "Rotated 90 CW"), ("upright", upright, "Horizontal (normal)")):
        write_tar(
            folder / name / "0.tar", [("a.png", data), ("a.json", _record(orientation, **about)), ("a.txt", "a cat")]
        )
    return tuple(ShardSource(str(folder / name), "s", folder / "index") for name in ("turned", "upright"))  # type: ignore[return-value]


@pytest.mark.parametrize("draft", [False, True])
def test_training_and_validation_turn_what_img2dataset_left(draft: bool, tmp_path: Path) -> None:
    items = []
    for source in _sources(tmp_path):
        part = TrainingSource(source=source, weight=1, held_out=np.empty(0, np.int64))
        transform = TrainTransform(20, (0.5,) * 3, (0.5,) * 3, draft=draft)
        stream = TrainingStream([part], transform, 0, read_image=transform.from_file)
        plain = TrainingStream([part], transform, 0)
        held = EvaluationItems([(source, np.arange(1))], EvalTransform(20, (0.5,) * 3, (0.5,) * 3))
        items.append([stream[0], plain[0], held[0]])
    for turned, upright in zip(*items, strict=True):
        assert torch.equal(turned.pixel_values, upright.pixel_values)


def test_check_and_questions_turn_it_too(tmp_path: Path) -> None:
    turned, upright = _sources(tmp_path)
    assert turned.read(0).decoded().size == (40, 60)
    assert len(inspect_samples(turned, "training", 1, [0]).images) == 1
    questions = tmp_path / "q.json"
    questions.write_text(
        json.dumps([{"question_id": 1, "image_id": 7, "image": "x", "question": "what?", "answer": "a cat"}])
    )
    config = QuestionSourceConfig(path=str(questions), format="list", shards=str(tmp_path / "turned"))
    question = QuestionSource(config).read(0)
    assert np.array_equal(question.decoded(), upright.read(0).decoded())


def test_folders_of_img2dataset_turn_it_too(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.png").write_bytes(encode(_photograph(), "PNG"))
    (tmp_path / "files" / "a.json").write_bytes(_record("Rotated 180"))
    record = open_pairs(str(tmp_path / "files")).read(0)
    assert np.array_equal(record.decoded(), np.rot90(_photograph(), 2))
    assert np.array_equal(decode_image(record.image), _photograph())
