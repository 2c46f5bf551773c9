"""Visual question answering: one answer for each question, scored by the official rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from blip2_train.data.annotations.visual_questions import VisualQuestion, named_image
from blip2_train.data.official.results import write_answer_results
from blip2_train.data.sources.question_source import Control, controlled
from blip2_train.data.text_cleaning import without_broken_marks
from blip2_train.errors import ConfigError
from blip2_train.evaluation.generation import ANSWERING, batches, generation_options, one_text
from blip2_train.evaluation.inference import Blip2
from blip2_train.evaluation.metrics.metric_format import percent
from blip2_train.evaluation.metrics.metric_states import AnswerMetric
from blip2_train.evaluation.metrics.vqa_accuracy import AnswerRule, AnswerScores
from blip2_train.evaluation.prompts import question_template
from blip2_train.evaluation.ranking import SHORTLIST
from blip2_train.evaluation.report.content import Example, TaskLabels
from blip2_train.evaluation.task import EvaluationTask, Row, TaskScores, data_fingerprint

Metric = Literal["vqa", "exact"]
_PLAIN = "plain/accuracy"


class AnsweringTask(EvaluationTask):
    """Answers to a set of questions, and their accuracy.

    Args:
        name: Name of the task.
        title: For people: `COCO captions, Karpathy test`.
        questions: With their reference answers; those about the same image should follow each other.
        folder: Folder of the images.
        picture_name: An image's path below `folder`, from its `{image_id}`: `COCO_val2014_{image_id:012d}.jpg`; None
            = the questions name it.
        prompt: Form of a question, with `{}` for it; None = the paper's for this kind of language model.
        generation: Fields of `GenerationOptions`; default: 5 beams, up to 10 new tokens and length penalty -1.
        candidates: Answer with the likeliest of these, and generate nothing; None = generate.
        shortlist: How many of them, those with the likeliest first tokens, are read to the end.
        metric: `vqa` = agreement with ten people (VQAv2, OK-VQA); `exact` = equality with the one answer (GQA), printed
            twice: `accuracy` with both sides normalised as in the released code, which the published numbers come from,
            and `plain/accuracy` with the texts as they are, as in GQA's official program.
        control: Negative control: the image of another question, or an empty question.
        batch_size: Questions at once.

    Source: BLIP-2, sections 4.1 and 4.3.
    """

    kind, example_metric, headline = "vqa", "accuracy", "accuracy"
    labels = TaskLabels(
        metrics={"accuracy": percent("accuracy")}, references="people answered", count_equal_references=True
    )

    def __init__(
        self,
        name: str,
        title: str,
        questions: Sequence[VisualQuestion],
        folder: Path,
        *,
        picture_name: str | None = None,
        prompt: str | None = None,
        generation: Mapping[str, Any] | None = None,
        candidates: Sequence[str] | None = None,
        shortlist: int = SHORTLIST,
        metric: Metric = "vqa",
        control: Control = "none",
        batch_size: int = 16,
    ) -> None:
        one_text(generation_options(ANSWERING, generation or {}), f"task {name}")
        question_template(prompt, encoder_decoder=False, trained="")
        self.name, self.title, self.questions, self.folder = name, title, controlled(questions, control), folder
        self._name, self._prompt = picture_name, prompt
        self._decoding: dict[str, Any] = dict(generation or {})
        if candidates is not None:
            self._decoding = {"candidates": list(candidates), "shortlist": shortlist}
        self._metric: Metric = metric
        self.closing: tuple[str, ...] = ("accuracy",) if metric == "vqa" else ("accuracy", _PLAIN)
        self._data, self._control, self._batch_size = data_fingerprint(questions), control, batch_size
        self._batches = list(batches(len(self.questions), batch_size))
        if picture_name is None and (nowhere := next((q for q in self.questions if not q.image), None)):
            raise ConfigError(
                f"task {name}: the file does not name the image of question {nowhere.question_id}; give "
                "picture_name, for instance COCO_val2014_{image_id:012d}.jpg"
            )

    def settings(self) -> Mapping[str, Any]:
        """The values that decide the predictions."""
        if "candidates" in self._decoding:
            decoding = self._decoding | {"candidates": data_fingerprint(self._decoding["candidates"])}
        else:
            decoding = ANSWERING | self._decoding
        return {
            "data": self._data,
            "prompt": self._prompt,
            "generation": decoding,
            "control": self._control,
            "batch_size": self._batch_size,
        }

    def start(self, model: Blip2) -> None:
        """Refuse a model without a language model."""
        model.generative(f"task {self.name}")

    def __len__(self) -> int:
        return len(self._batches)

    def paths(self, batch: int) -> list[Path]:
        """The image of each question of a batch."""
        return [self.folder / self.image_of(question) for question in self.questions[self._batches[batch]]]

    def predict(self, model: Blip2, batch: int, pixel_values: Tensor) -> list[Row]:
        """An answer to each question of a batch."""
        chosen = self.questions[self._batches[batch]]
        answers = model.answer(
            pixel_values,
            [without_broken_marks(question.question) for question in chosen],
            prompt=self._prompt,
            batch_size=len(pixel_values),
            **self._decoding,
        )
        return [
            {"question_id": question.question_id, "answer": text}
            for question, text in zip(chosen, answers, strict=True)
        ]

    def score(self, rows: Sequence[Row]) -> TaskScores:
        """Accuracy in percent: overall, by type of answer and by type of question."""
        result = self._accuracy(rows, self._metric)
        scores: dict[str, float | None] = {"accuracy": result.overall}
        if self._metric == "exact":
            scores[_PLAIN] = self._accuracy(rows, "plain").overall
        scores |= {f"answer type {kind}/accuracy": value for kind, value in result.per_answer_type.items()}
        scores |= {f"question type {kind}/accuracy": value for kind, value in result.per_question_type.items()}
        return TaskScores(scores=scores, per_sample={str(key): value for key, value in result.per_question.items()})

    def _accuracy(self, rows: Sequence[Row], rule: AnswerRule) -> AnswerScores[Any]:
        answers = {row["question_id"]: row["answer"] for row in rows}
        metric = AnswerMetric(rule)
        metric.update(
            [question.question_id for question in self.questions],
            [answers[question.question_id] for question in self.questions],
            [question.answers for question in self.questions],
            [question.question_type for question in self.questions],
            [question.answer_type for question in self.questions],
        )
        return metric.details()

    def examples(self, rows: Sequence[Row], scored: TaskScores) -> list[Example]:
        """Every question with its answer."""
        predictions = {row["question_id"]: row["answer"] for row in rows}
        return [
            Example(
                id=str(question.question_id),
                image=self.folder / self.image_of(question),
                prediction=predictions[question.question_id],
                references=question.answers,
                question=question.question,
                score=scored.per_sample.get(str(question.question_id)),
                domain=question.question_type,
            )
            for question in self.questions
        ]

    def write(self, rows: Sequence[Row], path: Path) -> None:
        """Write the answers as the server of VQA takes them."""
        answers = {row["question_id"]: row["answer"] for row in rows}
        write_answer_results(path, answers, [question.question_id for question in self.questions])

    def image_of(self, question: VisualQuestion) -> str:
        """Path of a question's image below the folder."""
        return question.image if self._name is None else named_image(self._name, question.image_id)
