"""Captioning: one caption for each image, scored as COCO's and NoCaps' servers do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from blip2_train.data.annotations.annotated_images import AnnotatedImage
from blip2_train.data.annotations.caption_layouts import DOMAINS
from blip2_train.data.official.results import write_caption_results
from blip2_train.errors import ConfigError
from blip2_train.evaluation.generation import CAPTIONING, SHORTEST_CAPTION, batches, generation_options, one_text
from blip2_train.evaluation.inference import Blip2
from blip2_train.evaluation.metrics.coco_caption import CAPTION_METRICS, FORMATS
from blip2_train.evaluation.metrics.metric_states import CaptionMetric
from blip2_train.evaluation.metrics.nocaps import ENTIRE
from blip2_train.evaluation.qformer_captions import qformer_defaults
from blip2_train.evaluation.report.content import Example, TaskLabels
from blip2_train.evaluation.task import EvaluationTask, Row, TaskScores, data_fingerprint


class CaptioningTask(EvaluationTask):
    """Captions of a set of images, and their scores.

    Args:
        name: Name of the task.
        title: For people: `COCO captions, Karpathy test`.
        images: With their reference captions.
        folder: Folder of the images.
        prompt: Beginning of the captions; None = what the model was trained with.
        generation: Fields of `GenerationOptions`; default: 5 beams and up to 30 new tokens. `min_new_tokens: None` =
            as the model's recipe validates, see `SHORTEST_CAPTION`. A stage-1 model takes its defaults from
            `QFORMER_CAPTIONING`.
        metrics: Any of `CAPTION_METRICS`; CIDEr is always among them.
        batch_size: Images at once.

    Source: BLIP-2, table 7 and section 4.2.
    """

    kind, example_metric, headline = "captioning", "cider", "cider"
    labels = TaskLabels(metrics=FORMATS, part="domain", references="references")

    def __init__(
        self,
        name: str,
        title: str,
        images: Sequence[AnnotatedImage],
        folder: Path,
        *,
        prompt: str | None = None,
        generation: Mapping[str, Any] | None = None,
        metrics: Sequence[str] = CAPTION_METRICS,
        batch_size: int = 16,
    ) -> None:
        if unwritten := next((image for image in images if not image.captions), None):
            raise ConfigError(f"task {name}: image {unwritten.image_id} has no captions to compare with")
        one_text(generation_options(CAPTIONING, generation or {}), f"task {name}")
        self.name, self.title, self.images, self.folder = name, title, list(images), folder
        self._prompt, self._generation, self._metrics = (
            prompt,
            dict(generation or {}),
            tuple(dict.fromkeys([*metrics, "cider"])),
        )
        self._chosen = dict(self._generation)
        domains = [domain for domain in DOMAINS if any(image.domain == domain for image in self.images)]
        self.closing = tuple(f"{domain}/cider" for domain in domains) or ("cider",)
        self._batches = list(batches(len(self.images), batch_size))
        self._batch_size = batch_size

    def settings(self) -> Mapping[str, Any]:
        """The values that decide the predictions."""
        return {
            "data": data_fingerprint(self.images),
            "prompt": self._prompt,
            "generation": CAPTIONING | self._chosen,
            "batch_size": self._batch_size,
        }

    def start(self, model: Blip2) -> None:
        """Choose what depends on the model."""
        self._chosen = dict(self._generation)
        if model.network.matches_texts:
            given = {name: value for name, value in self._generation.items() if value is not None}
            beams = {"num_beams": 1} if given.get("do_sample") else {}
            lengths = {name: value for name, value in qformer_defaults(given).items() if name != "length_penalty"}
            self._chosen = lengths | beams | given
        elif self._chosen.get("min_new_tokens", 0) is None:
            self._chosen["min_new_tokens"] = SHORTEST_CAPTION[model.network.is_encoder_decoder]

    def __len__(self) -> int:
        return len(self._batches)

    def paths(self, batch: int) -> list[Path]:
        """Images of a batch."""
        return [self.folder / image.path for image in self.images[self._batches[batch]]]

    def predict(self, model: Blip2, batch: int, pixel_values: Tensor) -> list[Row]:
        """A caption for each image of a batch."""
        captions = model.caption(pixel_values, prompt=self._prompt, batch_size=len(pixel_values), **self._chosen)
        chosen = self.images[self._batches[batch]]
        return [{"image_id": image.identity, "caption": text} for image, text in zip(chosen, captions, strict=True)]

    def score(self, rows: Sequence[Row]) -> TaskScores:
        """The metrics over all images, on the library's scale, and over each domain of NoCaps; see `score_domains`.

        Single images are compared by CIDEr.
        """
        generated = {row["image_id"]: row["caption"] for row in rows}
        metric = CaptionMetric(self._metrics)
        metric.update(
            [image.identity for image in self.images],
            [generated[image.identity] for image in self.images],
            [image.captions for image in self.images],
            [image.domain for image in self.images],
        )
        by_part = metric.details()
        scores, reasons = dict(by_part[ENTIRE].scores), dict(by_part[ENTIRE].reasons)
        for domain, part in by_part.items():
            if domain != ENTIRE:
                scores |= {f"{domain}/{name}": value for name, value in part.scores.items()}
                reasons |= {f"{domain}/{name}": reason for name, reason in part.reasons.items()}
        single = by_part[ENTIRE].per_image.get("cider", {})
        return TaskScores(scores=scores, reasons=reasons, per_sample={str(key): value for key, value in single.items()})

    def examples(self, rows: Sequence[Row], scored: TaskScores) -> list[Example]:
        """Every image with its caption."""
        generated = {row["image_id"]: row["caption"] for row in rows}
        return [
            Example(
                id=str(image.identity),
                image=self.folder / image.path,
                prediction=generated[image.identity],
                references=image.captions,
                score=scored.per_sample.get(str(image.identity)),
                domain=image.domain,
            )
            for image in self.images
        ]

    def write(self, rows: Sequence[Row], path: Path) -> None:
        """Write the captions as COCO's and NoCaps' servers take them."""
        captions = {row["image_id"]: row["caption"] for row in rows}
        write_caption_results(path, captions, [image.identity for image in self.images])
