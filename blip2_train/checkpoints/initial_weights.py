"""What a stage-1 model starts from: tower, then an earlier export or BERT."""

from __future__ import annotations

from pathlib import Path

from blip2_train.checkpoints.convert.bert import load_bert, locate_bert
from blip2_train.checkpoints.convert.timm_towers import load_tower
from blip2_train.checkpoints.export import read_export
from blip2_train.checkpoints.files import fingerprint, read_weights
from blip2_train.checkpoints.handover import HandoverRule, LoadReport, load_by_rule
from blip2_train.models.image_text import ImageTextModel

RANDOM = "random"


def load_initial_weights(model: ImageTextModel, init_from: str | None) -> list[LoadReport]:
    """Load the weights that the model's configuration and `init_from` name.

    Args:
        model: A freshly built stage-1 model.
        init_from: Folder of a stage-1 export whose weights are taken, or None to start from BERT.

    Returns:
        One report per file that was read.

    Raises:
        CheckpointMismatch: if a file is missing, damaged, or belongs to another model.
    """
    reports = []
    if model.vision_config.weights != RANDOM:
        reports.append(load_tower(model.vision_model, model.vision_config))
    if init_from is not None:
        state, _ = read_export(Path(init_from))
        rule = HandoverRule(
            what=f"export {init_from}", may_miss=("vision_model.*",) if model.vision_config.frozen else ()
        )
        reports.append(load_by_rule(model, state, rule))
    elif model.qformer_config.weights != RANDOM:
        reports.append(load_bert(model, model.qformer_config.weights))
    return reports


def parent_fingerprint(init_from: str | None, bert: str) -> str | None:
    """SHA-256 of the tensors that trained weights descend from: an export's, else BERT's; None if random."""
    if init_from is not None:
        return fingerprint(read_export(Path(init_from))[0])
    return None if bert == RANDOM else fingerprint(read_weights(locate_bert(bert)))
