"""The text half of a Q-Former that reads questions: stage 2 has none, so it comes from stage 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blip2_train.checkpoints.export import Manifest
from blip2_train.checkpoints.load_rules import LoadReport, LoadRule, load_by_rule
from blip2_train.checkpoints.weight_sources import find_weights
from blip2_train.errors import CheckpointMismatch
from blip2_train.models.blip2 import Blip2Model
from blip2_train.models.image_text import ImageTextModel


def needs_text_half(model: Blip2Model, manifest: Manifest) -> bool:
    """Whether the Q-Former reads questions, but the export that it starts from reads none."""
    return model.question_to_qformer and not holds_text_half(manifest.stage, manifest.architecture)


def holds_text_half(stage: str, architecture: Mapping[str, Any]) -> bool:
    """Whether weights of a stage and an architecture (`describe_model`) hold the text half of a Q-Former."""
    return stage == ImageTextModel.stage or bool(architecture.get("question_to_qformer", False))


def load_text_half(model: Blip2Model, manifest: Manifest, init_text_from: str | None) -> list[LoadReport]:
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
    if source.manifest.stage != ImageTextModel.stage:
        raise CheckpointMismatch(
            f"init_text_from={init_text_from} is an export of {source.manifest.stage}; give one of stage1"
        )
    rule = LoadRule(what=f"text half of {source.short}", only=model.text_half()[0], may_ignore=("*",))
    return [load_by_rule(model, source.state, rule)]
