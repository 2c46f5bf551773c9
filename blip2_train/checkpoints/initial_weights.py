"""What a model starts from: its frozen parts, then an earlier export, BERT, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from blip2_train.checkpoints.adapter_files import read_adapter
from blip2_train.checkpoints.adapters import attach_adapters, check_adapters
from blip2_train.checkpoints.convert.bert import load_bert, locate_bert
from blip2_train.checkpoints.convert.timm_towers import load_tower
from blip2_train.checkpoints.export import Manifest, read_export
from blip2_train.checkpoints.files import fingerprint, read_weights
from blip2_train.checkpoints.handover import HandoverRule, LoadReport, load_by_rule
from blip2_train.checkpoints.position_embeddings import resize_position_embeddings
from blip2_train.checkpoints.text_half import load_text_half, needs_text_half, read_text, unread_text
from blip2_train.errors import CheckpointMismatch
from blip2_train.language_files import locate_language_model
from blip2_train.models.configs import DTYPES, AdapterConfig
from blip2_train.models.generative import GenerativeModel
from blip2_train.models.image_text import ImageTextModel
from blip2_train.models.language_model import freeze_language_model, language_model_architecture
from blip2_train.models.quantized_loading import loading_options
from blip2_train.models.vision_tower import VisionTower

RANDOM = "random"
_POSITIONS = "vision_model.tower.pos_embed"
_STAGE_1_HEADS = ("lm_head.*", "vision_projection.*", "text_projection.*", "itm_head.*", "temperature")


def load_initial_weights(
    model: ImageTextModel | GenerativeModel,
    init_from: str | None,
    init_text_from: str | None = None,
    adapters: AdapterConfig | None = None,
) -> list[LoadReport]:
    """Load the weights that the model's configuration and `init_from` name.

    Args:
        model: A freshly built model.
        init_from: Folder of an export whose weights are taken, or None to start from BERT.
        init_text_from: Folder of the stage-1 export whose text half is taken, for a Q-Former that reads questions and
            starts from stage 2, which has none; else None.
        adapters: What the model gets beside its weights: the export's, if it has some, or fresh ones; None = nothing.

    Returns:
        One report per file that was read, and one of the adapters.

    Raises:
        CheckpointMismatch: if a file is missing, damaged, or belongs to another model.
        ConfigError: if the model cannot have such adapters.
    """
    reports = []
    export = None if init_from is None else read_export(Path(init_from))
    chosen = check_adapters(model, adapters, export[1] if export else None, init_from)
    if model.vision_config.weights != RANDOM and not (export and holds_tower(export[0])):
        reports.append(load_tower(model.vision_model, model.vision_config))
    if isinstance(model, GenerativeModel) and model.language_config.weights != RANDOM:
        reports.append(load_language_model(model))
    if export is not None:
        state, manifest = export
        if isinstance(model, GenerativeModel) and model.language_config.weights != RANDOM:
            _refuse_other_language_model(model, state, init_from)
        rule = handover_rule(model, manifest, f"export {init_from}", holds_tower(state))
        reports.append(load_by_rule(model, fit_positions(state, model.vision_model), rule))
        reports += load_text_half(model, manifest, init_text_from)
    elif model.qformer_config.weights != RANDOM:
        reports.append(load_bert(model, model.qformer_config.weights))
    if chosen is not None:
        held = read_adapter(Path(init_from), export[1].adapter_sha256) if init_from and export else {}
        reports.append(attach_adapters(model, chosen, held, f"export {init_from}"))
    return reports


def fit_positions(state: Mapping[str, Tensor], tower: VisionTower) -> dict[str, Tensor]:
    """The same weights, the tower's position embeddings, if they are there, resized to the picture size of `tower`."""
    fitted = dict(state)
    if _POSITIONS in fitted:
        tokens, prefix = tower.tower.pos_embed.shape[1], tower.tower.num_prefix_tokens
        fitted[_POSITIONS] = resize_position_embeddings(fitted[_POSITIONS], tokens=tokens, prefix_tokens=prefix)
    return fitted


def handover_rule(
    model: ImageTextModel | GenerativeModel, manifest: Manifest, what: str, holds_tower: bool
) -> HandoverRule:
    """What an export may lack and what of it is not needed, by the stage it comes from and the model it goes to.

    An export holds the tower whole, if it was trained, or nothing of it, if it was frozen; a frozen one comes from its
    own file, whether it is now trained or not.

    Raises:
        CheckpointMismatch: if no stage of the model continues such an export.
    """
    tower = () if holds_tower else ("vision_model.*",)
    if isinstance(model, ImageTextModel):
        if manifest.stage != "stage1":
            raise CheckpointMismatch(f"{what} is of {manifest.stage}; a stage-1 model continues an export of stage1")
        return HandoverRule(what=what, may_miss=tower)
    if manifest.stage == "stage1":
        fresh = (*tower, "language_model.*", "language_projection.*")
        return HandoverRule(what=what, may_miss=fresh, may_ignore=(*unread_text(model), *_STAGE_1_HEADS))
    text = read_text(model) if needs_text_half(model, manifest) else ()
    return HandoverRule(what=what, may_miss=(*tower, "language_model.*", *text))


def _refuse_other_language_model(model: GenerativeModel, state: Mapping[str, Tensor], init_from: str | None) -> None:
    """Refuse an export that holds another language model, for instance a merged one, than the run will name.

    What the run exports could not be opened again.
    """
    named = {f"language_model.{name}": tensor for name, tensor in model.language_model.state_dict().items()}
    for name in named.keys() & state.keys():
        held = state[name].to(named[name].dtype)
        if held.shape == named[name].shape and not torch.equal(held, named[name]):
            raise CheckpointMismatch(
                f"export {init_from} holds a language model of its own, which is not {model.language_config.name}; "
                "start from the export with adapters that it was merged from, or from one without adapters"
            )


def holds_tower(state: Mapping[str, Tensor]) -> bool:
    """Whether an export's weights have a tower's among them, which then was trained."""
    return any(name.startswith("vision_model.") for name in state)


def load_language_model(model: GenerativeModel) -> LoadReport:
    """Put the pretrained language model in its place, in its final precision, without a second copy in memory.

    Raises:
        CheckpointMismatch: if it cannot be read or fetched, or its sizes are not those of the recipe.
    """
    config = model.language_config
    architecture = language_model_architecture(config)
    family = AutoModelForSeq2SeqLM if architecture.is_encoder_decoder else AutoModelForCausalLM
    place = locate_language_model(config.name)
    try:
        both: Any = family.from_pretrained(
            place,
            config=architecture,
            trust_remote_code=False,
            dtype=DTYPES[config.dtype],
            output_loading_info=True,
            **loading_options(config.quantization),
        )
        loaded, found = both
    except Exception as error:  # transformers raises whatever its readers raise
        raise CheckpointMismatch(
            f"language model {config.name!r} could not be loaded ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:150]}); give model.language.name=<folder>, or check the network"
        ) from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if found.get(problem):
            first = str(sorted(map(str, found[problem]))[0])
            kind = f"{len(found[problem])} {problem.replace('_', ' ')} (first: {first})"
            raise CheckpointMismatch(
                f"language model {config.name!r} has {kind}; the recipe's architecture is not that of the weights"
            )
    model.language_model = freeze_language_model(loaded, config)
    names = tuple(f"language_model.{name}" for name in loaded.state_dict())
    return LoadReport(what=f"language model {config.name} ({config.dtype})", loaded=names, fresh=(), ignored=())


def parent_fingerprint(init_from: str | None, bert: str) -> str | None:
    """SHA-256 of the tensors that trained weights descend from: an export's, else BERT's; None if random."""
    if init_from is not None:
        return fingerprint(read_export(Path(init_from))[0])
    return None if bert == RANDOM else fingerprint(read_weights(locate_bert(bert)))
