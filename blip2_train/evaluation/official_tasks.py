"""Evaluation tasks from files of captions and questions: the official ones, and all that can be trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from blip2_train.data.annotations.annotated_images import AnnotatedImage, is_embedded
from blip2_train.data.annotations.captions import CaptionForm, read_references
from blip2_train.data.annotations.columns import Columns
from blip2_train.data.annotations.questions import QuestionForm, read_questions
from blip2_train.data.official.candidates import read_candidates
from blip2_train.data.official.checks import missing_images
from blip2_train.data.sources.question_source import Control
from blip2_train.errors import ConfigError, ShardError
from blip2_train.evaluation.captioning import CaptioningTask
from blip2_train.evaluation.metrics.coco_caption import CAPTION_METRICS
from blip2_train.evaluation.question_answering import AnsweringTask, Metric
from blip2_train.evaluation.ranking import SHORTLIST
from blip2_train.evaluation.retrieval import Rerank, RetrievalTask


def captioning_task(
    *,
    name: str,
    title: str,
    annotations: str,
    images: str | None = None,
    form: CaptionForm | None = None,
    split: str | None = None,
    picture_column: str | None = None,
    caption_column: str | None = None,
    id_column: str | None = None,
    prompt: str | None = None,
    generation: Mapping[str, Any] | None = None,
    metrics: Sequence[str] = CAPTION_METRICS,
    batch_size: int = 16,
    limit: int | None = None,
    prepare: Callable[[], Any] | None = None,
) -> CaptioningTask:
    """Captions of a set.

    Args:
        name: Name of the task.
        title: For people: `COCO captions, Karpathy test`.
        annotations: Caption file, of any layout that `read_captions` knows.
        images: Folder of the images; None = that of the file.
        form: The layout that it must have: `coco` = COCO's and NoCaps' annotations, `karpathy` = `dataset_coco.json`,
            `list` = the lists of the released code; None = any.
        split: Of a file with splits, or of a `list` of the released code.
        picture_column: Column or key of the image in rows, where it is not a usual one.
        caption_column: Likewise of the caption.
        id_column: Likewise of what predictions call an image.
        prompt: Beginning of the captions; None = the prompt of training.
        generation: Fields of `GenerationOptions`.
        metrics: Any of `CAPTION_METRICS`.
        batch_size: Images at once.
        limit: The first images only, for a try; scores of a part cannot be compared with those of the whole.
        prepare: Called before the files are read, for instance to write a generated set.

    Raises:
        ShardError: if a file or image is missing, or a file is not of that form.
        ConfigError: if an option cannot be used.
    """
    if prepare is not None:
        prepare()
    columns = Columns(image=picture_column, caption=caption_column, id=id_column)
    references, folder = _references(name, annotations, images, form, split, columns, limit)
    return CaptioningTask(
        name,
        title,
        references,
        folder,
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
    images: str | None = None,
    form: CaptionForm | None = None,
    split: str | None = None,
    picture_column: str | None = None,
    caption_column: str | None = None,
    id_column: str | None = None,
    shortlist: int = 128,
    max_text_length: int = 35,
    batch_size: int = 16,
    rerank: Rerank = "released",
    limit: int | None = None,
    prepare: Callable[[], Any] | None = None,
) -> RetrievalTask:
    """Retrieval among the images and captions of a set; arguments as `captioning_task` and `RetrievalTask`."""
    if prepare is not None:
        prepare()
    columns = Columns(image=picture_column, caption=caption_column, id=id_column)
    references, folder = _references(name, annotations, images, form, split, columns, limit)
    sizes = {"shortlist": shortlist, "max_text_length": max_text_length, "batch_size": batch_size}
    return RetrievalTask(name, title, references, folder, rerank=rerank, **sizes)


def answering_task(
    *,
    name: str,
    title: str,
    questions: str,
    images: str | None = None,
    annotations: str | None = None,
    form: QuestionForm | None = None,
    picture_column: str | None = None,
    question_column: str | None = None,
    answer_column: str | None = None,
    id_column: str | None = None,
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
        name: Name of the task.
        title: For people: `COCO captions, Karpathy test`.
        questions: Question file, of any layout that `read_questions` knows.
        images: Folder of the images; None = that of the file.
        annotations: Annotation file of VQAv2 or OK-VQA; None where the answers are not published or in the same file.
        form: The layout that it must have: `vqa` = VQAv2 and OK-VQA, `visual_genome`, `gqa`, or in place of each a list
            of entries; None = any.
        picture_column: Column or key of the image in lists and tables, where it is not a usual one.
        question_column: Likewise of the question.
        answer_column: Likewise of the answer or answers.
        id_column: Likewise of what predictions call a question.
        picture_name: See `AnsweringTask`; likewise the others.
        candidates: File of answers, see `read_candidates`: the likeliest of them is the answer, whatever `generation`
            says.
        limit: The first questions only, for a try.
        prepare: Called before the files are read.

    Raises:
        ShardError: if a file or image is missing, or a file is not of that form.
        ConfigError: if an option cannot be used.
    """
    if prepare is not None:
        prepare()
    columns = Columns(image=picture_column, question=question_column, answer=answer_column, id=id_column)
    entries = read_questions(questions, annotations, columns=columns, form=form, strict=True)
    folder = _folder(images, questions)
    task = AnsweringTask(
        name,
        title,
        entries[:limit],
        folder,
        picture_name=picture_name,
        prompt=prompt,
        generation=generation,
        candidates=None if candidates is None else read_candidates(candidates),
        shortlist=shortlist,
        metric=metric,
        control=control,
        batch_size=batch_size,
    )
    _check_there(name, {task.image_of(question) for question in task.questions}, folder)
    return task


def _references(
    name: str,
    annotations: str,
    images: str | None,
    form: CaptionForm | None,
    split: str | None,
    columns: Columns,
    limit: int | None,
) -> tuple[list[AnnotatedImage], Path]:
    references, folder = read_references(annotations, split, columns, form)[:limit], _folder(images, annotations)
    if unnamed := next((one for one in references if not one.path or is_embedded(one.path)), None):
        what = "holds the image itself" if unnamed.path else "does not name the file of the image"
        raise ConfigError(f"task {name}: {annotations}, {unnamed.row} {what}; give a file with the paths of images")
    _check_there(name, {image.path for image in references}, folder)
    return references, folder


def _folder(images: str | None, file: str) -> Path:
    return Path(file).expanduser().parent if images is None else Path(images).expanduser()


def _check_there(name: str, paths: set[str], folder: Path) -> None:
    missing = missing_images(sorted(paths), folder)
    if missing:
        raise ShardError(
            f"task {name}: {len(missing)} of {len(paths)} images are not in {folder} (first: {missing[0]}); put them "
            f"there, or pass their folder: tasks.{name}.images=<folder>"
        )
