"""The scores as torchmetrics objects, for any training loop: updated batch by batch, computed over all processes.

Each sample counts once, also if a sampler gave it to two processes. Shape letters: B pictures, E feature size.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from blip2_train.evaluation.metrics.coco_caption import score_captions
from blip2_train.evaluation.metrics.held_out_answers import held_out_accuracy
from blip2_train.evaluation.recall import retrieval_recall

_logger = logging.getLogger(__name__)


class _TextMetric(Metric):
    """Collects texts by key, as bytes of JSON lines, which torchmetrics can gather like any tensor."""

    full_state_update = False
    lines: list[Tensor]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("lines", default=[], dist_reduce_fx="cat")

    def _keep(self, key: int | str, *values: Any) -> None:
        line = json.dumps([key, *values]) + "\n"
        self.lines.append(torch.frombuffer(bytearray(line.encode()), dtype=torch.uint8).to(self.device))

    def _kept(self) -> dict[int | str, list[Any]]:
        """What was kept, in order of key."""
        text = bytes(dim_zero_cat(self.lines).cpu().numpy()).decode() if len(self.lines) else ""
        rows = [json.loads(line) for line in text.splitlines()]
        return {key: values for key, *values in sorted(rows, key=lambda row: (str(type(row[0])), row[0]))}

    def _numbers(self, scores: dict[str, float]) -> dict[str, Tensor]:
        return {name: torch.tensor(value, dtype=torch.float64, device=self.device) for name, value in scores.items()}


class CaptionMetric(_TextMetric):
    """BLEU, METEOR, ROUGE-L, CIDEr and SPICE, see `score_captions`; what could not be computed is left out and said.

    Args:
        metrics: Any of `METRICS`.
        **options: Of `torchmetrics.Metric`.

    Example:
        metric = CaptionMetric(("bleu_4", "cider"))
        metric.update([7, 9], ["a cat", "two dogs"], [["a cat on a mat"], ["two dogs run", "some dogs"]])
        metric.compute()["cider"]
    """

    def __init__(self, metrics: Sequence[str] = ("cider",), **options: Any) -> None:
        super().__init__(**options)
        self.metrics = tuple(metrics)

    def update(self, image_ids: Sequence[int], captions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
        """Add captions of B pictures beside what people wrote."""
        for key, caption, others in zip(image_ids, captions, references, strict=True):
            self._keep(key, caption, list(others))

    def compute(self) -> dict[str, Tensor]:
        """By name, on the library's scale: 1.0 is what papers print as 100."""
        kept = self._kept()
        found = score_captions(
            {key: caption for key, (caption, _) in kept.items()},
            {key: others for key, (_, others) in kept.items()},
            self.metrics,
        )
        for name, reason in found.reasons.items():
            _logger.warning("no %s: %s", name, reason)
        return self._numbers({name: value for name, value in found.scores.items() if value is not None})


class AnswerMetric(_TextMetric):
    """Accuracy of answers, overall and for each type of question, see `held_out_accuracy`."""

    def update(
        self,
        question_ids: Sequence[int | str],
        answers: Sequence[str],
        references: Sequence[Sequence[str]],
        question_types: Sequence[str],
    ) -> None:
        """Add answers to B questions beside those of people; a type may be empty."""
        for key, answer, others, kind in zip(question_ids, answers, references, question_types, strict=True):
            self._keep(key, answer, list(others), kind)

    def compute(self) -> dict[str, Tensor]:
        """By name, in percent."""
        kept = self._kept()
        found = held_out_accuracy(
            {key: answer for key, (answer, _, _) in kept.items()},
            {key: others for key, (_, others, _) in kept.items()},
            {key: kind for key, (_, _, kind) in kept.items()},
        )
        return self._numbers(found)


class RecallMetric(Metric):
    """Recall@k both ways, see `retrieval_recall`, from features of pictures and texts.

    Args:
        ks: Cut-offs.
        **options: Of `torchmetrics.Metric`.
    """

    full_state_update = False
    images: list[Tensor]
    texts: list[Tensor]
    image_ids: list[Tensor]
    text_image_ids: list[Tensor]

    def __init__(self, ks: tuple[int, ...] = (1, 5, 10), **options: Any) -> None:
        super().__init__(**options)
        self.ks = ks
        for name in ("images", "texts", "image_ids", "text_image_ids"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, images: Tensor, image_ids: Tensor, texts: Tensor, text_image_ids: Tensor) -> None:
        """Add features.

        Args:
            images: `(B, Q, E)`, of unit length along E: the best of the Q queries counts.
            image_ids: `(B,)`, int64.
            texts: `(T, E)`, of unit length along E.
            text_image_ids: `(T,)`, int64: which picture each text belongs to.
        """
        self.images.append(images.float())
        self.texts.append(texts.float())
        self.image_ids.append(image_ids)
        self.text_image_ids.append(text_image_ids)

    def compute(self) -> dict[str, Tensor]:
        """`image_to_text_r<k>` and `text_to_image_r<k>` in percent; a picture that comes twice counts once."""
        images, texts = dim_zero_cat(self.images), dim_zero_cat(self.texts)
        known, rows = torch.unique(dim_zero_cat(self.image_ids), return_inverse=True)
        places = torch.arange(len(rows), device=rows.device)
        first = torch.full_like(known, len(rows)).scatter_reduce_(0, rows, places, "amin")
        similarity = torch.stack([(image @ texts.T).amax(dim=0) for image in images[first]])
        right = torch.searchsorted(known, dim_zero_cat(self.text_image_ids))
        found = retrieval_recall(similarity, right, self.ks)
        return {name: torch.tensor(value, device=self.device) for name, value in found.items()}
