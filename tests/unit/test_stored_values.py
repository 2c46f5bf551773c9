"""What earlier versions stored means the same: fingerprints, held-out images, reasons of rejected samples."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from blip2_train.data.annotations.annotated_images import AnnotatedImage
from blip2_train.data.annotations.visual_questions import VisualQuestion
from blip2_train.data.rejections import RejectionLog
from blip2_train.data.sources.question_source import _in_subset
from blip2_train.evaluation.task import data_fingerprint
from blip2_train.types import RejectedSample

IMAGE = (
    "AnnotatedPicture(row='line 2', path='a.jpg', captions=('a cat',), image_id=7, split=None, domain='', "
    "counted=False)"
)
QUESTION = (
    "VisualQuestion(question_id=1, image_id=7, picture='a.jpg', question='what?', answers=('cat',), question_type='', "
    "answer_type='other')"
)


def digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def question(image_id: int) -> VisualQuestion:
    known = {"question": "what?", "answers": ("cat",), "question_type": "", "answer_type": "other"}
    return VisualQuestion(question_id=1, image_id=image_id, image="a.jpg", **known)  # type: ignore[arg-type]


def test_fingerprints_of_evaluations_that_were_begun() -> None:
    image = AnnotatedImage(row="line 2", path="a.jpg", captions=("a cat",), image_id=7)
    assert data_fingerprint([image]) == digest(IMAGE)
    assert data_fingerprint([question(7)]) == digest(QUESTION)


def test_the_same_images_are_held_out() -> None:
    """Models were trained on the others."""
    held_out = [number for number in range(1, 401) if _in_subset(question(number), "rest")]
    assert held_out == [15, 29, 30, 51, 81, 138, 151, 185, 280, 357, 363]


def test_a_sample_rejected_by_an_earlier_version_is_not_counted_again(tmp_path: Path) -> None:
    listed = {"source": "0.tar", "key": "a", "reason": "unreadable picture", "detail": "not a JPEG file"}
    (tmp_path / "rejected.jsonl").write_text(json.dumps(listed) + "\n")
    log = RejectionLog(tmp_path / "rejected.jsonl")
    log.record([RejectedSample(source="0.tar", key="a", reason="unreadable image", detail="not a JPEG file")], 100)
    assert log.counts == {"unreadable image": 1}
