"""Questions about images as a source to train on and to validate on, and their negative controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast, get_args

from blip2_train.data.annotations.columns import Columns
from blip2_train.data.annotations.json_content import require_local
from blip2_train.data.annotations.questions import QuestionForm, read_questions
from blip2_train.data.annotations.visual_questions import VisualQuestion
from blip2_train.data.order import stable_seed
from blip2_train.data.printable_names import names_digest
from blip2_train.data.record import QuestionRecord, SampleLocation
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.sources.config import SourceConfig
from blip2_train.data.sources.question_images import FolderImages, ShardImages
from blip2_train.errors import ConfigError, ShardError
from blip2_train.types import RejectedSample

Control = Literal["none", "shuffled_pictures", "blank_questions"]
CONTROLS: tuple[str, ...] = get_args(Control)
BLANK = "?"


def controlled(questions: Sequence[VisualQuestion], control: str) -> list[VisualQuestion]:
    """The questions in their order: with images of distant questions, or with blank texts, as `control` requires."""
    if control == "shuffled_pictures":
        return [_with_other_image(questions, index) for index in range(len(questions))]
    if control == "blank_questions":
        return [replace(question, question=BLANK) for question in questions]
    return list(questions)


def _with_other_image(questions: Sequence[VisualQuestion], index: int) -> VisualQuestion:
    question, count = questions[index], len(questions)
    others = (questions[(index + count // 2 + step) % count] for step in range(count))
    shown = next((other for other in others if other.image_id != question.image_id), question)
    return replace(question, image_id=shown.image_id, image=shown.image)


FORMATS: tuple[str, ...] = get_args(QuestionForm)
SUBSETS = ("all", "most", "rest")
ONE_IN = 40
"""One image in this many belongs to the `rest`."""


@dataclass(frozen=True, kw_only=True)
class QuestionSourceConfig(SourceConfig):
    """A question file (`path`), and a folder or shards with the images."""

    format: str = "vqa"
    """`vqa` (VQAv2, OK-VQA), `visual_genome`, `gqa`, or `list` (entries with image, question and answer), which is
    also accepted for each of the others."""
    annotations: str | None = None
    """Annotation file with the answers, of the formats `vqa` and `list`."""
    question_column: str | None = None
    """Column or key of the question in a list or table; `question` or `text` if None."""
    answer_column: str | None = None
    """Column or key of the answer or answers; `answers`, `answer` or another usual one if None."""
    picture_name: str = ""
    """File name of an image in the folder `images`, with its `{image_id}`; empty = the path in the question file."""
    shards: str | None = None
    """Tar shards with the images, matched by the `"image_id"` of each `.json`."""
    subset: str = "all"
    """`all` questions; those of `most` images, one in 40 left out by its id; or those of the `rest` alone."""
    control: str = "none"
    """Negative controls, in which only guessing is left: `shuffled_pictures` or `blank_questions`."""

    def require_file(self) -> None:
        """As for captions, also the file with the answers."""
        for what, path in (("question file", self.path), ("annotation file", self.annotations)):
            if path is not None:
                require_local(what, str(path))
        super().require_file()

    def __post_init__(self) -> None:
        for name, known in (("format", FORMATS), ("subset", SUBSETS), ("control", CONTROLS)):
            if getattr(self, name) not in known:
                raise ConfigError(f"source {self.path}: {name} is {getattr(self, name)!r}; use {', '.join(known)}")
        if not isinstance(self.path, str) or self.split is not None or self.first_captions is not None:
            raise ConfigError(f"source {self.path}: path is one question file, without split and first_captions")
        if (self.images is None) == (self.shards is None):
            raise ConfigError(f"source {self.path}: give either images (image folder) or shards")
        if self.annotations is not None and self.format not in ("vqa", "list"):
            raise ConfigError(
                f"source {self.path}: annotations belong to formats vqa and list; {self.format} holds its answers"
            )
        if self.weight is not None and not self.weight > 0:
            raise ConfigError(f"source {self.path}: weight must be positive, got {self.weight}; leave it out instead")
        try:
            self.picture_name.format(image_id=1)
        except (LookupError, ValueError) as error:
            raise ConfigError(
                f"source {self.path}: picture_name {self.picture_name!r} cannot be filled in ({error}); write "
                "{image_id} or {image_id:012d}"
            ) from None

    def own_source(self) -> QuestionSource:
        """Open the source."""
        return QuestionSource(self)


class QuestionSource:
    """Questions about images, each with one answer per annotator.

    A question without answers (of a test split) is no sample: it can neither be trained on nor scored.

    Raises:
        ShardError: if a file or folder cannot be read, or no question has an answer.
    """

    def __init__(self, config: QuestionSourceConfig) -> None:
        self.name, self._path, self._control = config.title, str(config.path), config.control
        options = () if config.annotations is None else (config.annotations,)
        columns = Columns(
            image=config.picture_column,
            question=config.question_column,
            answer=config.answer_column,
            id=config.id_column,
        )
        form = cast(QuestionForm, config.format)
        questions = read_questions(str(config.path), config.annotations, columns=columns, form=form)
        questions = [question for question in questions if _in_subset(question, config.subset)]
        self._questions = controlled([question for question in questions if question.answers], config.control)
        if not self._questions:
            raise ShardError(
                f"no question of {config.path} has an answer; give the annotations of the split, and of a split whose "
                "answers are published"
            )
        if config.shards is not None:
            self._images: FolderImages | ShardImages = ShardImages(config.shards, self.name)
        else:
            self._images = FolderImages(str(config.images), config.picture_name)
        self._images.check(self._questions, self._path)
        unanswered = [question for question in questions if not question.answers]
        self.rejected = tuple(
            RejectedSample(source=self._path, key=str(question.question_id), reason="missing answer", detail="")
            for question in unanswered
        )
        files = [Path(part).expanduser() for part in (config.path, *options) if isinstance(part, str)]
        self.size, self.files = sum(file.stat().st_size for file in files), len(files)

    def __len__(self) -> int:
        return len(self._questions)

    def sample_location(self, index: int) -> SampleLocation:
        """The location of question `index`."""
        return SampleLocation(self._path, Path(self._path).stem, str(self._questions[index].question_id))

    def read(self, index: int) -> QuestionRecord:
        """Read question `index` with its image and all its answers.

        Raises:
            UnusableSample: if the image is missing, or there is no question.
        """
        record = self.read_texts(index)
        file = self._images.read(self._questions[index])
        return replace(record, image=file.content, orientation=file.orientation)

    def read_texts(self, index: int) -> QuestionRecord:
        """Question `index` with all its answers, without its image.

        Raises:
            UnusableSample: if there is no question.
        """
        question = self._questions[index]
        if not question.question.strip():
            raise UnusableSample("missing text", "an empty question")
        known = question.image_id
        own = isinstance(known, int) and abs(known) < 2**63
        return QuestionRecord(
            image=b"",
            captions=question.answers,
            image_id=int(known) if own else stable_seed("picture", known),
            question=question.question,
            question_id=question.question_id,
            question_type=question.question_type,
        )

    def fingerprint(self) -> str:
        """Hash of the questions' ids, of how many answers each has, and of the control."""
        parts = [f"{question.question_id}:{len(question.answers)}" for question in self._questions]
        return names_digest([self._control, *parts])


_HELD_OUT = "held-out picture"
"""Chooses the held-out images; another text would hold out others, on which earlier models were trained."""


def _in_subset(question: VisualQuestion, subset: str) -> bool:
    if subset == "all":
        return True
    rest = stable_seed(_HELD_OUT, question.image_id) % ONE_IN == 0
    return rest is (subset == "rest")
