"""The text half of a Q-Former that reads questions: stage 2 has none, so it comes from stage 1."""

from __future__ import annotations

from collections.abc import Iterable

from blip2_train.checkpoints.export import Manifest
from blip2_train.checkpoints.load_rules import LoadReport, LoadRule, load_by_rule
from blip2_train.checkpoints.weight_sources import find_weights
from blip2_train.errors import CheckpointMismatch
from blip2_train.models.generative import GenerativeModel
from blip2_train.models.image_text import ImageTextModel


def text_half(layers: Iterable[int]) -> tuple[str, ...]:
    """Patterns for the text feed-forward of these layers (a `*` in place of the number would match attention too)."""
    return tuple(f"qformer.encoder.layer.{number}.{part}.*" for number in layers for part in ("intermediate", "output"))


def read_text(model: GenerativeModel) -> tuple[str, ...]:
    """What a Q-Former that reads questions has of a text half: all but the last layer's feed-forward."""
    return ("embeddings.*", *text_half(range(model.qformer_config.num_layers - 1)))


def unread_text(model: GenerativeModel) -> tuple[str, ...]:
    """What of a text half the model has no place for: everything, or the last layer's feed-forward."""
    layers = model.qformer_config.num_layers
    return text_half([layers - 1]) if model.question_to_qformer else ("embeddings.*", *text_half(range(layers)))


def needs_text_half(model: ImageTextModel | GenerativeModel, manifest: Manifest) -> bool:
    """Whether the Q-Former reads questions, but the export that it starts from reads none."""
    if not isinstance(model, GenerativeModel) or not model.question_to_qformer or manifest.stage == "stage1":
        return False
    return not manifest.architecture.get("question_to_qformer", False)


def load_text_half(
    model: ImageTextModel | GenerativeModel, manifest: Manifest, init_text_from: str | None
) -> list[LoadReport]:
    """Take the Q-Former's text half from a stage-1 export, if the export it started from (`manifest`) has none.

    Raises:
        CheckpointMismatch: if one is needed and none given, one given and none needed, or it is not of stage 1.
    """
    if not needs_text_half(model, manifest):
        if init_text_from is not None:
            raise CheckpointMismatch(
                f"init_text_from={init_text_from}: the Q-Former reads no text, or init_from brings its text half; pass "
                "init_text_from=null"
            )
        return []
    if init_text_from is None:
        raise CheckpointMismatch(
            f"the Q-Former reads questions, but an export of {manifest.stage} has no text half; pass "
            "init_text_from=<stage-1 export that it descends from>"
        )
    source = find_weights(init_text_from)
    if source.manifest.stage != "stage1":
        raise CheckpointMismatch(
            f"init_text_from={init_text_from} is an export of {source.manifest.stage}; give one of stage1"
        )
    assert isinstance(model, GenerativeModel)
    rule = LoadRule(what=f"text half of {source.short}", only=read_text(model), may_ignore=("*",))
    return [load_by_rule(model, source.state, rule)]
