"""Evaluation tasks from the official files of COCO, NoCaps, Flickr30k, VQAv2, OK-VQA, Visual Genome and GQA."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from blip2_train.data.official.candidates import read_candidates
from blip2_train.data.official.checks import missing_pictures
from blip2_train.data.official.coco import read_coco_captions
from blip2_train.data.official.karpathy import read_karpathy
from blip2_train.data.official.lavis import read_caption_list
from blip2_train.data.official.pictures import CaptionedPicture
from blip2_train.data.question_control import Control
from blip2_train.data.visual_questions import VisualQuestion, read_gqa, read_visual_genome, read_vqa
from blip2_train.errors import ConfigError, ShardError
from blip2_train.evaluation.captioning import CaptioningTask
from blip2_train.evaluation.metrics.coco_caption import METRICS
from blip2_train.evaluation.question_answering import AnsweringTask, Metric
from blip2_train.evaluation.ranking import SHORTLIST
from blip2_train.evaluation.retrieval import Rerank, RetrievalTask

CaptionForm = Literal["coco", "karpathy", "list"]
QuestionForm = Literal["vqa", "visual_genome", "gqa"]


def captioning_task(
    *,
    name: str,
    title: str,
    annotations: str,
    images: str,
    form: CaptionForm = "coco",
    split: str = "test",
    prompt: str | None = None,
    generation: Mapping[str, Any] | None = None,
    metrics: Sequence[str] = METRICS,
    batch_size: int = 16,
    limit: int | None = None,
    prepare: Callable[[], Any] | None = None,
) -> CaptioningTask:
    """Captions of a set.

    Args:
        name: Of the task.
        title: As a person would say it.
        annotations: Caption file.
        images: Folder of the pictures.
        form: `coco` = COCO's and NoCaps' annotations, `karpathy` = `dataset_coco.json`, `list` = the lists of the
            released code.
        split: Of a `karpathy` file or a `list`.
        prompt: What captions go on from; None = what the model was trained with.
        generation: Fields of `GenerationOptions`.
        metrics: Any of `METRICS`.
        batch_size: Pictures at once.
        limit: The first pictures only, for a try; scores of a part cannot be compared with those of the whole.
        prepare: Called before the files are read, for instance to write a set that is made from a seed.

    Raises:
        ShardError: if a file or picture is missing, or a file is not of that form.
        ConfigError: if an option cannot be used.
    """
    if prepare is not None:
        prepare()
    pictures = _pictures(name, annotations, images, form, split, limit)
    return CaptioningTask(
        name,
        title,
        pictures,
        Path(images).expanduser(),
        prompt=prompt,
        generation=generation,
        metrics=metrics,
        batch_size=batch_size,
    )


def retrieval_task(
    *,
    name: str,
    title: str,
    annotations: str,
    images: str,
    form: CaptionForm = "karpathy",
    split: str = "test",
    shortlist: int = 128,
    max_text_length: int = 35,
    batch_size: int = 16,
    rerank: Rerank = "released",
    limit: int | None = None,
    prepare: Callable[[], Any] | None = None,
) -> RetrievalTask:
    """Retrieval among the pictures and captions of a set; arguments as `captioning_task` and `RetrievalTask`."""
    if prepare is not None:
        prepare()
    pictures = _pictures(name, annotations, images, form, split, limit)
    folder = Path(images).expanduser()
    sizes = {"shortlist": shortlist, "max_text_length": max_text_length, "batch_size": batch_size}
    return RetrievalTask(name, title, pictures, folder, rerank=rerank, **sizes)


def answering_task(
    *,
    name: str,
    title: str,
    questions: str,
    images: str,
    annotations: str | None = None,
    form: QuestionForm = "vqa",
    picture_name: str | None = None,
    prompt: str | None = None,
    generation: Mapping[str, Any] | None = None,
    candidates: str | None = None,
    shortlist: int = SHORTLIST,
    metric: Metric = "vqa",
    control: Control = "none",
    batch_size: int = 16,
    limit: int | None = None,
    prepare: Callable[[], Any] | None = None,
) -> AnsweringTask:
    """Answers to the questions of a set.

    Args:
        name: Of the task.
        title: As a person would say it.
        questions: Question file.
        images: Folder of the pictures.
        annotations: Annotation file of VQAv2 or OK-VQA; None where the answers are not published or in the same file.
        form: `vqa` = VQAv2 and OK-VQA, `visual_genome`, `gqa`; also the lists of the released code.
        picture_name: See `AnsweringTask`; likewise the others.
        candidates: File of answers, see `read_candidates`: the likeliest of them is the answer, whatever `generation`
            says.
        limit: The first questions only, for a try.
        prepare: Called before the files are read.

    Raises:
        ShardError: if a file or picture is missing, or a file is not of that form.
        ConfigError: if an option cannot be used.
    """
    if prepare is not None:
        prepare()
    if form == "vqa":
        found = read_vqa(questions, annotations)
    elif annotations is None:
        readers: dict[str, Callable[[str], list[VisualQuestion]]] = {
            "gqa": read_gqa,
            "visual_genome": read_visual_genome,
        }
        found = readers[form](questions)
    else:
        raise ConfigError(f"task {name}: a question file of the form {form} holds its answers; leave out annotations")
    task = AnsweringTask(
        name,
        title,
        found[:limit],
        Path(images).expanduser(),
        picture_name=picture_name,
        prompt=prompt,
        generation=generation,
        candidates=None if candidates is None else read_candidates(candidates),
        shortlist=shortlist,
        metric=metric,
        control=control,
        batch_size=batch_size,
    )
    _check_there(name, {task.picture_of(question) for question in task.questions}, images)
    return task


def _pictures(
    name: str, annotations: str, images: str, form: CaptionForm, split: str, limit: int | None
) -> list[CaptionedPicture]:
    if form == "coco":
        pictures = read_coco_captions(annotations)
    else:
        pictures = (read_karpathy if form == "karpathy" else read_caption_list)(annotations, split)
    pictures = pictures[:limit]
    _check_there(name, {picture.path for picture in pictures}, images)
    return pictures


def _check_there(name: str, paths: set[str], images: str) -> None:
    missing = missing_pictures(sorted(paths), images)
    if missing:
        raise ShardError(
            f"task {name}: {len(missing)} of {len(paths)} pictures are not in {images} (first: {missing[0]}); put them "
            "there, or name their folder"
        )
