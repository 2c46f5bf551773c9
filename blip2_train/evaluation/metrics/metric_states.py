"""The scores as torchmetrics objects: updated batch by batch, computed over all processes.

Validation uses `compute`; evaluation tasks, whose predictions one process holds, use `details`.

Their states synchronise by themselves when `compute` is called, which every process must do. Each sample counts once,
also if a sampler gave it to two processes. (An evaluation keeps predictions on disk, where every
process reads those of all others.) Shape letters: B images, E feature size.
"""

from __future__ import annotations

import json
import logging
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from blip2_train.distributed import from_first, gather_uneven
from blip2_train.evaluation.metrics.coco_caption import FORMATS, CaptionScores, score_captions
from blip2_train.evaluation.metrics.nocaps import ENTIRE, score_domains
from blip2_train.evaluation.metrics.recall import pair_recall
from blip2_train.evaluation.metrics.vqa_accuracy import AnswerRule, AnswerScores, answer_accuracy

CaptionScore = Callable[[str, Sequence[str]], float]
"""Score of a caption and its references."""
_logger = logging.getLogger(__name__)


class Totals(Metric):
    """Sums over all batches of all processes, in float64.

    Args:
        *shape: Shape of the sum.
    """

    full_state_update = False
    sums: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__(dist_sync_fn=gather_uneven)
        self.add_state("sums", default=torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        """Add values of this object's shape."""
        self.sums += values.detach().to(self.sums)

    def compute(self) -> Tensor:
        """The sums, float64."""
        return self.sums


class Rows(Metric):
    """Tensors `(B, …)` by name, of all processes in rank order.

    Args:
        *names: Names of the tensors.
        **options: Options of `torchmetrics.Metric`.
    """

    full_state_update = False

    def __init__(self, *names: str, **options: Any) -> None:
        super().__init__(**{"dist_sync_fn": gather_uneven} | options)
        self.names = names
        for name in names:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, **rows: Tensor) -> None:
        """Add rows of every name."""
        for name in self.names:
            getattr(self, name).append(rows[name].detach().to(self.device))

    def compute(self) -> Any:
        """The number of rows; `of_all` returns the rows, as torchmetrics takes a single one for a scalar."""
        return len(self._joined(self.names[0]))

    @contextmanager
    def of_all(self) -> Iterator[dict[str, Tensor]]:
        """The rows of all processes, by name; every process must enter it."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn):
            yield {name: self._joined(name) for name in self.names}

    def _joined(self, name: str) -> Tensor:
        return dim_zero_cat(getattr(self, name)) if len(getattr(self, name)) else torch.empty(0, device=self.device)


class _TextMetric(Metric):
    """Collects texts by key, as bytes of JSON lines, which torchmetrics can gather like any tensor."""

    full_state_update = False
    lines: list[Tensor]

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"dist_sync_fn": gather_uneven} | options)
        self.add_state("lines", default=[], dist_reduce_fx="cat")
        self.samples = 0
        """How many different samples the last `compute` found."""

    def _keep(self, key: int | str, *values: Any) -> None:
        line = json.dumps([key, *values]) + "\n"
        self.lines.append(torch.frombuffer(bytearray(line.encode()), dtype=torch.uint8).to(self.device))

    def _kept(self) -> dict[Any, list[Any]]:
        """The values of each key, once."""
        text = bytes(dim_zero_cat(self.lines).cpu().numpy()).decode() if len(self.lines) else ""
        return {key: values for key, *values in map(json.loads, text.splitlines())}

    def compute(self) -> dict[str, Tensor]:
        """Scores by name, float64; none if nothing was kept. Of several processes, the first alone computes them."""
        kept = self._kept()
        self.samples = len(kept)

        def score() -> dict[str, float]:
            return self._score(kept) if kept else {}

        scores = from_first(score) if self._is_synced else score()
        return {name: torch.tensor(value, dtype=torch.float64, device=self.device) for name, value in scores.items()}

    @abstractmethod
    def _score(self, kept: Mapping[Any, list[Any]]) -> dict[str, float]:
        """Scores of samples by key."""


class CaptionMetric(_TextMetric):
    """BLEU, METEOR, ROUGE-L, CIDEr and SPICE, see `score_captions`; what could not be computed is left out and logged.

    They are on the library's scale: 1.0 is what papers print as 100.

    Args:
        metrics: Any of `CAPTION_METRICS`.
        more_scores: Scores of single captions, by name; their means are given in percent.
        **options: Options of `torchmetrics.Metric`.

    Example:
        ```python
        metric = CaptionMetric(("bleu_4", "cider"))
        metric.update([7, 9], ["a cat", "two dogs"], [["a cat on a mat"], ["two dogs run", "some dogs"]])
        metric.compute()["cider"]
        ```
    """

    def __init__(
        self,
        metrics: Sequence[str] = ("cider",),
        more_scores: Mapping[str, CaptionScore] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.metrics, self.more_scores = tuple(metrics), dict(more_scores or {})

    def update(
        self,
        image_ids: Sequence[int | str],
        captions: Sequence[str],
        references: Sequence[Sequence[str]],
        domains: Sequence[str] | None = None,
    ) -> None:
        """Add captions of B images with their references; the domains are those of NoCaps."""
        domains = [""] * len(image_ids) if domains is None else domains
        for key, caption, others, domain in zip(image_ids, captions, references, domains, strict=True):
            self._keep(key, caption, list(others), domain)

    def details(self) -> dict[str, CaptionScores[Any]]:
        """Scores of this process's images, with reasons and scores of single images, by domain; last `ENTIRE`."""
        return self._by_domain(self._kept())

    def _by_domain(self, kept: Mapping[Any, list[Any]]) -> dict[str, CaptionScores[Any]]:
        captions = {key: caption for key, (caption, _, _) in kept.items()}
        references = {key: others for key, (_, others, _) in kept.items()}
        domains = {key: domain for key, (_, _, domain) in kept.items() if domain}
        if domains:
            return score_domains(captions, references, domains, self.metrics)
        return {ENTIRE: score_captions(captions, references, self.metrics)}

    def _score(self, kept: Mapping[Any, list[Any]]) -> dict[str, float]:
        result = self._by_domain(kept)[ENTIRE]
        for name, reason in result.reasons.items():
            _logger.warning("no %s: %s", FORMATS[name].label, reason)
        means = {
            name: 100 * sum(score(caption, others) for caption, others, _ in kept.values()) / len(kept)
            for name, score in self.more_scores.items()
        }
        return means | {name: value for name, value in result.scores.items() if value is not None}


class AnswerMetric(_TextMetric):
    """Accuracy of answers in percent, overall and for each type of question.

    Args:
        rule: See `answer_accuracy`.
        **options: Options of `torchmetrics.Metric`.
    """

    def __init__(self, rule: AnswerRule | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.rule = rule

    def update(
        self,
        question_ids: Sequence[int | str],
        answers: Sequence[str],
        references: Sequence[Sequence[str]],
        question_types: Sequence[str],
        answer_types: Sequence[str] | None = None,
    ) -> None:
        """Add answers to B questions with the reference answers; a type may be empty."""
        answer_types = [""] * len(question_ids) if answer_types is None else answer_types
        for key, *values in zip(question_ids, answers, references, question_types, answer_types, strict=True):
            self._keep(key, values[0], list(values[1]), *values[2:])

    def details(self) -> AnswerScores[Any]:
        """Accuracies of this process's questions, by type of answer and of question, and of each question."""
        return self._accuracy(self._kept())

    def _accuracy(self, kept: Mapping[Any, list[Any]]) -> AnswerScores[Any]:
        return answer_accuracy(
            {key: answer for key, (answer, _, _, _) in kept.items()},
            {key: others for key, (_, others, _, _) in kept.items()},
            self.rule,
            question_types={key: kind for key, (_, _, kind, _) in kept.items()},
            answer_types={key: kind for key, (_, _, _, kind) in kept.items()},
        )

    def _score(self, kept: Mapping[Any, list[Any]]) -> dict[str, float]:
        scores = self._accuracy(kept)
        by_type = {f"accuracy {kind}": value for kind, value in scores.per_question_type.items()}
        return {"accuracy": scores.overall, **by_type}


class RecallMetric(Rows):
    """Recall@k both ways, see `retrieval_recall`, from features of images and texts.

    Args:
        ks: Cut-offs.
        **options: Options of `torchmetrics.Metric`.
    """

    def __init__(self, ks: tuple[int, ...] = (1, 5, 10), **options: Any) -> None:
        super().__init__("images", "image_ids", "texts", "text_image_ids", **options)
        self.ks = ks

    def update(  # type: ignore[override]
        self, images: Tensor, image_ids: Tensor, texts: Tensor, text_image_ids: Tensor
    ) -> None:
        """Add features.

        Args:
            images: `(B, Q, E)`, of unit length along E: the best of the Q queries counts.
            image_ids: `(B,)`, int64.
            texts: `(T, E)`, of unit length along E.
            text_image_ids: `(T,)`, int64: which image each text belongs to.
        """
        super().update(images=images.float(), image_ids=image_ids, texts=texts.float(), text_image_ids=text_image_ids)

    def compute(self) -> dict[str, Tensor]:
        """`image_to_text_r<k>` and `text_to_image_r<k>` in percent; an image that comes twice counts once."""
        images, image_ids, texts, text_image_ids = map(self._joined, self.names)
        similarity = torch.stack([(image @ texts.T).amax(dim=0) for image in images])
        recall = pair_recall(similarity, image_ids, text_image_ids, self.ks)
        return {name: torch.tensor(value, device=self.device) for name, value in recall.items()}
