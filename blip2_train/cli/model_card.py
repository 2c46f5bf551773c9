"""The model card of an export: how to use it, its scores, and the hub's metadata with a widget and a `model-index`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from blip2_train.checkpoints.architecture import tower_details
from blip2_train.checkpoints.export import Manifest
from blip2_train.errors import ConfigError
from blip2_train.evaluation.metrics.metric_format import MetricFormat, part_label
from blip2_train.evaluation.report.content import weights_location
from blip2_train.evaluation.report.logged_scores import COUNTS, logged_format
from blip2_train.system.atomic_write import read_checked

GENERATES, MATCHES = "image-text-to-text", "zero-shot-image-classification"
_PROMPT = "Question: what is in the image? Answer:"
_LABELS = "a red car, two dogs, a green apple"
_USE = {
    GENERATES: 'print(model.caption(["image.jpg"]), model.answer(["image.jpg"], "what is on the left?"))',
    MATCHES: 'scores = model.match(["image.jpg"], ["a red car", "two dogs"])\nprint(scores.itc, scores.itm)',
}


@dataclass(frozen=True, kw_only=True)
class CardScore:
    """A score of the card."""

    dataset: str
    """For people."""
    dataset_id: str
    metric: str
    """Name of the metric in the code."""
    format: MetricFormat
    part: str
    """Of the set; empty for all of it."""
    value: float
    """On the scorer's scale."""

    @property
    def shown(self) -> float:
        """On the papers' scale."""
        return round(self.value * (self.format.papers_factor or self.format.factor), 4)

    @property
    def label(self) -> str:
        """Name of the metric for people."""
        return ", ".join(filter(None, (self.format.label, self.format.row, part_label(self.part))))


def held_out_scores(manifest: Manifest) -> list[CardScore]:
    """The scores of the run's held-out samples, as the export's manifest has them."""
    names = {key: key.removeprefix("val/") for key in sorted(manifest.metrics)}
    return [
        CardScore(
            dataset=f"held-out samples of {manifest.recipe}",
            dataset_id=manifest.recipe,
            metric=name,
            format=logged_format(name),
            part="",
            value=manifest.metrics[key],
        )
        for key, name in names.items()
        if name not in COUNTS
    ]


def evaluation_scores(path: Path, folder: Path) -> list[CardScore]:
    """The scores of an evaluation of an export.

    Args:
        path: Its `results.json`.
        folder: The export.

    Raises:
        ConfigError: if it is no evaluation, or one of another model.
        DamagedFile: if it is not what was written.
    """
    if not path.is_file():
        raise ConfigError(f"--results {path}: there is no such file; give the results.json of an evaluation")
    tasks = read_checked(path, "evaluate again").get("tasks")
    if not isinstance(tasks, dict):
        raise ConfigError(f"--results {path} holds no tasks; give the results.json of an evaluation, not of a training")
    scores = []
    for name, task in tasks.items():
        origin = Path(weights_location(str(task.get("checkpoint", "")))).expanduser().resolve()
        if origin not in (folder.resolve(), folder.resolve().parent):
            raise ConfigError(
                f"--results {path}: task {name} is of {task.get('checkpoint')}, not of {folder}; give one of this"
            )
        for key, value in task.get("scores", {}).items():
            part, _, metric = key.rpartition("/")
            if isinstance(value, int | float):
                scores.append(
                    CardScore(
                        dataset=task.get("title", name),
                        dataset_id=name,
                        metric=metric,
                        format=logged_format(metric),
                        part=part,
                        value=value,
                    )
                )
    return scores


def model_card(
    manifest: Manifest, repository: str, example: str, scores: Sequence[CardScore], licence: str | None
) -> str:
    """The text of `README.md`.

    Args:
        manifest: Of the export.
        repository: `owner/model`.
        example: Name of the example image in the repository.
        scores: Of its held-out samples and its evaluations.
        licence: Of the weights; None = not stated.
    """
    kind = GENERATES if manifest.architecture.get("language") else MATCHES
    title = repository.rpartition("/")[2]
    address = f"https://huggingface.co/{repository}/resolve/main/{example}"
    trial = {"text": _PROMPT} if kind == GENERATES else {"candidate_labels": _LABELS}
    results = [
        EvalResult(
            task_type=kind,
            dataset_type=score.dataset_id,
            dataset_name=score.dataset,
            metric_type=score.metric,
            metric_name=score.label,
            metric_value=score.shown,
        )
        for score in scores
    ]
    data = ModelCardData(
        library_name="blip2_train",
        pipeline_tag=kind,
        tags=["blip-2", "q-former", "vision-language"],
        license=licence,
        widget=[{"src": address, "example_title": "an example", **trial}],
        model_name=title if results else None,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---\n\n{_body(manifest, repository, title, kind, scores)}"


def _body(manifest: Manifest, repository: str, title: str, kind: str, scores: Sequence[CardScore]) -> str:
    vision = manifest.architecture.get("vision", {})
    size, changes = vision.get("image_size"), vision.get("overrides")
    parts = [f"vision tower `{_cell(vision.get('name', ''))}` ({_cell(tower_details(size, changes))})"]
    if language := manifest.architecture.get("language"):
        parts.append(f"language model `{_cell(Path(str(language.get('name', ''))).name)}`")
    rows = [f"| {_cell(s.dataset)} | {_cell(s.label)} | {s.shown:g} |" for s in scores]
    table = ["", "## Scores", "", "| data | metric | |", "| --- | --- | --- |", *rows] if rows else []
    what = "writes text about images" if kind == GENERATES else "matches images and texts"
    return "\n".join([
        f"# {title}",
        "",
        f"A [BLIP-2](https://arxiv.org/abs/2301.12597) model that {what}, trained by blip2_train: recipe "
        f"`{_cell(manifest.recipe)}`, stage `{_cell(manifest.stage)}`, {manifest.step:,} optimiser steps.",
        "",
        f"It has the {' and the '.join(parts)}. What was trained is in this repository; frozen "
        "parts that are not in it are loaded from where they come from.",
        "",
        "```python",
        "import blip2_train as b2",
        "",
        f'model, processor = b2.load_pretrained("{repository}")',
        _USE[kind],
        "```",
        *table,
        "",
    ])  # fmt: skip


def _cell(text: object) -> str:
    """Text that ends no code, cell or line of Markdown."""
    return " ".join(str(text).replace("`", "'").replace("|", "/").replace("<", "‹").split())
