"""The text half of a Q-Former that reads questions: stage 2 has none, so it comes from stage 1."""

from __future__ import annotations

from pathlib import Path

from blip2_train.checkpoints.export import Manifest, read_export
from blip2_train.checkpoints.handover import HandoverRule, LoadReport, load_by_rule
from blip2_train.errors import CheckpointMismatch
from blip2_train.models.generative import GenerativeModel
from blip2_train.models.image_text import ImageTextModel

TEXT_HALF = ("embeddings.*", "qformer.encoder.layer.*.intermediate.*", "qformer.encoder.layer.*.output.*")


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
    state, source = read_export(Path(init_text_from))
    if source.stage != "stage1":
        raise CheckpointMismatch(f"init_text_from={init_text_from} is an export of {source.stage}; give one of stage1")
    what = f"text half of export {init_text_from}"
    return [load_by_rule(model, state, HandoverRule(what=what, only=TEXT_HALF, may_ignore=("*",)))]


def unread_text(model: GenerativeModel) -> tuple[str, ...]:
    """What of a text half the model has no place for: everything, or the last layer's feed-forward."""
    if not model.question_to_qformer:
        return TEXT_HALF
    last = f"qformer.encoder.layer.{model.qformer_config.num_layers - 1}"
    return (f"{last}.intermediate.*", f"{last}.output.*")
