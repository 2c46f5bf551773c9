"""Converts described scenes to the records of Karpathy's COCO splits, COCO captions, VQAv2 and NoCaps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from blip2_train.data.emoji_scenes.questions import Question
from blip2_train.data.emoji_scenes.scenes import SCENE_SIZE, Scene

LICENSE = {"id": 1, "name": "see LICENSES of blip2_train/assets/demo", "url": ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedScene:
    """A scene of one split, with captions and questions."""

    split: str
    image_id: int
    scene: Scene
    captions: tuple[str, ...]
    questions: tuple[Question, ...]
    domain: str
    """NoCaps' `in-domain`, `near-domain` or `out-domain`; empty for the other splits."""

    @property
    def file_name(self) -> str:
        """Name of its image file, see `image_file_name`."""
        return image_file_name(self.split, self.image_id)

    def caption_id(self, caption_index: int) -> int:
        """Identity of its caption `caption_index`, unique in the world."""
        return self.image_id * 100 + caption_index


def image_file_name(split: str, image_id: int) -> str:
    """Name of an image's file, COCO style: `emoji_val_000002000012.jpg`."""
    return f"emoji_{split}_{image_id:012d}.jpg"


def karpathy_json(scenes: Iterable[DescribedScene]) -> dict[str, Any]:
    """The layout of `dataset_coco.json`: the images of every split with their sentences."""
    images = []
    for image_index, described in enumerate(scenes):
        sentids = [described.caption_id(i) for i in range(len(described.captions))]
        sentences = [
            {"tokens": caption.split(), "raw": caption, "imgid": image_index, "sentid": sentid}
            for caption, sentid in zip(described.captions, sentids, strict=True)
        ]
        images.append(
            {
                "filepath": described.split,
                "sentids": sentids,
                "filename": described.file_name,
                "imgid": image_index,
                "split": described.split,
                "sentences": sentences,
                "cocoid": described.image_id,
            }
        )
    return {"images": images, "dataset": "emoji_scenes"}


def caption_json(scenes: Sequence[DescribedScene], *, domains: bool = False) -> dict[str, Any]:
    """COCO's caption annotations, readable by pycocotools; with `domains`, NoCaps' form of them."""
    images = [
        {"id": d.image_id, "file_name": d.file_name, "width": SCENE_SIZE, "height": SCENE_SIZE, "license": 1}
        | ({"domain": d.domain, "open_images_id": f"{d.image_id:016x}"} if domains else {})
        for d in scenes
    ]
    annotations = [
        {"image_id": d.image_id, "id": d.caption_id(i), "caption": caption}
        for d in scenes
        for i, caption in enumerate(d.captions)
    ]
    info = {"description": "emoji scenes", "version": "1.0"}
    return {"info": info, "licenses": [LICENSE], "images": images, "annotations": annotations}


def vqa_json(scenes: Sequence[DescribedScene]) -> tuple[dict[str, Any], dict[str, Any]]:
    """VQAv2's question file and annotation file."""
    questions, annotations = [], []
    for described in scenes:
        for question_index, question in enumerate(described.questions):
            identity = {"image_id": described.image_id, "question_id": described.image_id * 1000 + question_index}
            questions.append({**identity, "question": question.text})
            answers = [
                {"answer": answer, "answer_confidence": "yes", "answer_id": i + 1}
                for i, answer in enumerate(question.answers)
            ]
            annotations.append(
                {
                    "question_type": question.kind,
                    "multiple_choice_answer": question.answer,
                    "answers": answers,
                    **identity,
                    "answer_type": question.answer_type,
                }
            )
    head = {"info": {"description": "emoji scenes", "version": "1.0"}, "data_type": "emoji_scenes", "license": LICENSE}
    subtype = scenes[0].split if scenes else ""
    return (
        {**head, "task_type": "Open-Ended", "data_subtype": subtype, "questions": questions},
        {**head, "data_subtype": subtype, "annotations": annotations},
    )
