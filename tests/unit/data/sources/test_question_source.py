"""Questions as a source: answers by their counts, images of folders and shards, subsets, negative controls."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from question_files import ANSWERS, COUNT, source, write_questions
from shard_files import image, write_tar

from blip2_train.data.batches.transforms import CLIP_MEAN, CLIP_STD, TrainTransform
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.sources.config import open_source
from blip2_train.data.sources.holdout import TrainingSource
from blip2_train.data.sources.question_source import QuestionSource, QuestionSourceConfig
from blip2_train.data.stream.stream import EvaluationItems, TrainingStream
from blip2_train.errors import ConfigError, ShardError
from blip2_train.types import QuestionSample

NOBODY = np.empty(0, dtype=np.int64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_questions(tmp_path_factory.mktemp("questions") / "set")


def opened(folder: Path, **changes: Any) -> QuestionSource:
    loaded = open_source(QuestionSourceConfig(**source(folder, **changes)))
    assert isinstance(loaded, QuestionSource)
    return loaded


def stream(folder: Path, seed: int = 0) -> TrainingStream:
    part = TrainingSource(source=opened(folder), weight=1, held_out=NOBODY)
    return TrainingStream([part], TrainTransform(8, CLIP_MEAN, CLIP_STD), seed)


def test_a_sample_is_a_question_with_one_of_its_answers(folder: Path) -> None:
    samples = stream(folder)
    ids = set()
    for position in range(COUNT):
        loaded = samples[position]
        assert isinstance(loaded, QuestionSample)
        index = int(loaded.question_id) - 100
        assert loaded.caption in ANSWERS[index % 4] and loaded.references == ANSWERS[index % 4]
        assert loaded.image_id == index // 2 and loaded.question.endswith("?") and loaded.question_type
        ids.add(loaded.question_id)
    assert len(ids) == COUNT


@pytest.mark.slow
def test_answers_are_drawn_as_often_as_people_gave_them_and_again_the_same(folder: Path) -> None:
    first, second = stream(folder), stream(folder)
    counts: Counter[str] = Counter()
    for position in range(150 * COUNT // 4):
        loaded = first[position]
        if loaded.references == ANSWERS[0]:
            counts[loaded.caption] += 1
            if position < 100:
                assert second[position].caption == loaded.caption
    share = counts["red"] / counts.total()
    assert abs(share - 0.7) < 4 * (0.21 / counts.total()) ** 0.5, counts  # four standard deviations


def test_questions_and_answers_that_are_not_unicode_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(image(form="PNG"))
    entries = [
        {"question_id": f"{index}\udce9", "image": "a.png", "question": question, "answer": answer}
        for index, (question, answer) in enumerate([("what?", "a \ud83d"), ("what \ud83d?", "red"), ("what?", "red")])
    ]
    (tmp_path / "q.json").write_text(json.dumps(entries))
    loaded = open_source(QuestionSourceConfig(path=str(tmp_path / "q.json"), format="list", images=str(tmp_path)))
    part = TrainingSource(source=loaded, weight=1, held_out=NOBODY)
    samples = [TrainingStream([part], TrainTransform(8, CLIP_MEAN, CLIP_STD), 0)[position] for position in range(6)]
    assert {sample.sample_id for sample in samples} == {r"q/2\udce9#0"}
    reasons = {(one.key, one.reason) for sample in samples for one in sample.rejected}
    assert (
        reasons == {(r"0\udce9", "text is not Unicode"), (r"1\udce9", "text is not Unicode")} and loaded.fingerprint()
    )


def test_subsets_divide_by_image(tmp_path: Path) -> None:
    folder = write_questions(tmp_path / "many", 400)
    most, rest, everything = (opened(folder, subset=subset) for subset in ("most", "rest", "all"))
    images = [{source.read(i).image_id for i in range(len(source))} for source in (most, rest)]
    assert len(most) + len(rest) == len(everything) == 400 and not images[0] & images[1]
    assert 0 < len(rest) < 60 and len({most.fingerprint(), rest.fingerprint(), everything.fingerprint()}) == 3


def test_controls_leave_only_guessing(folder: Path) -> None:
    right, shuffled, blank = (
        opened(folder, control=control) for control in ("none", "shuffled_pictures", "blank_questions")
    )
    for index in range(COUNT):
        original, other, silent = right.read(index), shuffled.read(index), blank.read(index)
        assert (
            other.question == original.question
            and other.captions == original.captions
            and other.image != original.image
        )
        assert other.image_id != original.image_id and silent.image_id == original.image_id
        assert silent.question == "?" and silent.image == original.image and silent.captions == original.captions
    assert len({source.fingerprint() for source in (right, shuffled, blank)}) == 3
    items = EvaluationItems([(blank, np.arange(3))], TrainTransform(8, CLIP_MEAN, CLIP_STD))
    assert isinstance(items[0], QuestionSample) and items[0].question == "?"


def test_images_are_looked_up_in_shards_by_image_id(folder: Path, tmp_path: Path) -> None:
    members = [
        member
        for index in range(COUNT // 2)
        for member in (
            (f"{index:03d}.jpg", image((index, 0, 0))),
            (f"{index:03d}.json", json.dumps({"caption": "x", "image_id": COUNT // 2 - 1 - index})),
        )
    ]
    write_tar(tmp_path / "shards/0.tar", members)
    options = {"images": None, "picture_name": "", "shards": str(tmp_path / "shards")}
    loaded = opened(folder, **options)
    assert loaded.read(0).image == image((COUNT // 2 - 1, 0, 0))
    write_tar(tmp_path / "few/0.tar", members[:2])
    with pytest.raises(UnusableSample) as caught:
        opened(folder, **options | {"shards": str(tmp_path / "few")}).read(0)
    assert caught.value.reason == "missing image"
    other = [
        (name, json.dumps({"caption": "x", "image_id": 999}) if "json" in name else data) for name, data in members
    ]
    write_tar(tmp_path / "other/0.tar", other)
    with pytest.raises(ShardError, match="is it another split"):
        opened(folder, **options | {"shards": str(tmp_path / "other")})


def test_questions_without_answers_are_no_samples(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"no question of .* has an answer"):
        opened(folder, annotations=None)
    entries = [
        {"image": "0.jpg", "question": "why?", "answer": "because"},
        {"image": "0.jpg", "question": "who?", "answer": []},
    ]
    (tmp_path / "list.json").write_text(json.dumps(entries))
    loaded = opened(folder, path=str(tmp_path / "list.json"), annotations=None, format="list", picture_name="")
    assert len(loaded) == 1 and [sample.reason for sample in loaded.rejected] == ["missing answer"]
    assert loaded.read(0).captions == ("because",)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "vqa2"}, "format is 'vqa2'; use vqa, "),
        ({"subset": "some"}, "use all, most, rest"),
        ({"control": "shuffle"}, "use none, shuffled_pictures"),
        ({"images": None}, "either images .* or shards"),
        ({"shards": "x"}, "either images .* or shards"),
        ({"format": "gqa"}, "annotations belong to formats vqa and list"),
        ({"picture_name": "{image}.jpg"}, "picture_name .* cannot be filled in"),
        ({"weight": 0.0}, "weight must be positive"),
        ({"split": "train"}, "without split"),
    ],
)
def test_what_cannot_be_meant_is_refused(folder: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        QuestionSourceConfig(**source(folder, **changes))


def test_missing_folders_and_names_are_reported(folder: Path) -> None:
    with pytest.raises(ShardError, match=r"image folder .*nowhere does not exist"):
        opened(folder, images=str(folder / "nowhere"))
    with pytest.raises(ShardError, match="give picture_name"):
        opened(folder, picture_name="")
    with pytest.raises(UnusableSample, match=r"no 0\.png"):
        opened(folder, picture_name="{image_id}.png").read(0)


def test_a_sample_depends_on_no_generator_of_torch(folder: Path) -> None:
    first = stream(folder, seed=3)
    torch.manual_seed(1)
    one = first[17]
    torch.manual_seed(2)
    assert first[17].caption == one.caption and torch.equal(first[17].pixel_values, one.pixel_values)
