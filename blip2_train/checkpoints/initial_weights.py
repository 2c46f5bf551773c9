"""The initial weights of a model: its frozen parts, then earlier weights of any known format, BERT, or none."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from blip2_train.checkpoints.adapters import attach_adapters, check_adapters
from blip2_train.checkpoints.convert.bert import load_bert, locate_bert
from blip2_train.checkpoints.export import Manifest
from blip2_train.checkpoints.files import fingerprint, read_weights
from blip2_train.checkpoints.foreign_weights import SourceWeights
from blip2_train.checkpoints.frozen_parts import (
    LANGUAGE_MODEL,
    VISION_MODEL,
    load_language_model,
    load_tower,
    refuse_other_language_model,
)
from blip2_train.checkpoints.load_rules import LoadReport, LoadRule, load_by_rule
from blip2_train.checkpoints.position_embeddings import fit_positions
from blip2_train.checkpoints.text_half import load_text_half, needs_text_half
from blip2_train.checkpoints.weight_sources import find_weights, same_location
from blip2_train.errors import CheckpointMismatch
from blip2_train.models.blip2 import Blip2Model
from blip2_train.models.configs import AdapterConfig
from blip2_train.models.freezing import FROZEN_PARTS

RANDOM = "random"


def load_initial_weights(
    model: Blip2Model,
    init_from: str | None,
    init_text_from: str | None = None,
    adapters: AdapterConfig | None = None,
) -> list[LoadReport]:
    """Load the weights that the model's configuration and `init_from` name.

    Args:
        model: A freshly built model.
        init_from: Export, run folder, Hugging Face folder or id, LAVIS or Paddle file whose weights are taken, or None
            to start from BERT.
        init_text_from: Stage-1 weights, of any of these, whose text half is taken, for a Q-Former that reads questions
            and starts from stage 2, which has none; else None.
        adapters: Adapters to add: the export's, if it has some, or fresh ones; None = none.

    Returns:
        One report per file that was read, and one of the adapters.

    Raises:
        CheckpointMismatch: if a file is missing, damaged, or belongs to another model.
        ConfigError: if the model cannot have such adapters.
    """
    reports = []
    source = None if init_from is None else find_weights(init_from)
    chosen = check_adapters(model, adapters, source.manifest if source else None, init_from)
    if VISION_MODEL in pretrained_parts(model) and not (source and VISION_MODEL in source.held):
        reports.append(load_tower(model.vision_model, model.vision_config))
    if LANGUAGE_MODEL in pretrained_parts(model):
        reports.append(load_language_model(model, source if brings_language_model(model, source) else None))
    if source is not None:
        reports += load_source(model, source, init_text_from)
    elif model.qformer_config.weights != RANDOM:
        reports.append(load_bert(model, model.qformer_config.weights))
    if chosen is not None:
        reports.append(attach_adapters(model, chosen, source.adapters if source else {}, f"export {init_from}"))
    return reports


def pretrained_parts(model: Blip2Model) -> frozenset[str]:
    """Names of the parts whose weights come from files of their own."""
    return frozenset(part for part, weights in model.frozen_parts.items() if weights != RANDOM)


def brings_language_model(model: Blip2Model, source: SourceWeights | None) -> bool:
    """Whether the language model that the configuration names is the one that the source holds."""
    config = model.language_config
    if source is None or config is None or LANGUAGE_MODEL not in source.held:
        return False
    return same_location(config.name, source.location)


def load_source(model: Blip2Model, source: SourceWeights, init_text_from: str | None = None) -> list[LoadReport]:
    """Load everything but the language model from earlier weights, and the text half that they may lack.

    Args:
        model: With its frozen parts.
        source: The earlier weights.
        init_text_from: As in `load_initial_weights`.

    Raises:
        CheckpointMismatch: if the weights belong to another model.
    """
    pretrained = pretrained_parts(model)
    if LANGUAGE_MODEL in pretrained and not brings_language_model(model, source):
        refuse_other_language_model(model, source)
    state = source.fit(source.state, model.state_dict())
    if LANGUAGE_MODEL in pretrained:
        state = {name: tensor for name, tensor in state.items() if not name.startswith(f"{LANGUAGE_MODEL}.")}
    rule = load_rule(model, source.manifest, source.short, VISION_MODEL in source.held, source.may_miss)
    report = load_by_rule(model, fit_positions(state, model.vision_model), rule)
    fresh = tuple(name for name in report.fresh if name.partition(".")[0] not in pretrained)
    report = replace(report, fresh=fresh, notes=_changes(model, source.manifest, fresh))
    return [report, *load_text_half(model, source.manifest, init_text_from)]


def _changes(model: Blip2Model, manifest: Manifest, fresh: tuple[str, ...]) -> tuple[str, ...]:
    """What a run does differently from the one that its weights come from, where that may be meant or not."""
    notes, before = [], manifest.architecture.get("vision", {}).get("image_size")
    if before not in (None, now := model.vision_config.image_size):
        notes.append(f"trained on images of {before} px, used with {now} px (image_size)")
    if not model.vision_config.frozen and any(name.startswith("language_projection.") for name in fresh):
        notes.append(f"these are weights of {manifest.stage}, fine-tuning usually starts from some of stage 2")
    return tuple(notes)


def load_rule(
    model: Blip2Model,
    manifest: Manifest,
    what: str,
    holds_tower: bool,
    may_miss: tuple[str, ...] = (),
) -> LoadRule:
    """The rule for earlier weights, by their stage and the model: what may be missing and what is not used.

    An export holds the tower whole, if it was trained, or nothing of it, if it was frozen; a frozen one comes from its
    own file, whether it is now trained or not.

    Args:
        model: The model to load into.
        manifest: Manifest of the weights.
        what: Their name in messages.
        holds_tower: Whether they hold a tower.
        may_miss: Patterns that weights of their format also lack; these start fresh.

    Raises:
        CheckpointMismatch: if no stage of the model continues such weights.
    """
    tower = () if holds_tower else ("vision_model.*",)
    refuse_stage(type(model), manifest.stage, what)
    text = model.text_half()[0] if needs_text_half(model, manifest) else ()
    fresh = (*tower, *model.fresh_after(manifest.stage), *text, *(may_miss if model.matches_texts else ()))
    return LoadRule(what=what, may_miss=fresh, may_ignore=model.unread_after(manifest.stage))


def refuse_stage(kind: type[Blip2Model], stage: str, what: str) -> None:
    """Refuse weights of a stage that a kind of model does not continue.

    Args:
        kind: Class of the model.
        stage: Of the weights.
        what: Their name in the message.

    Raises:
        CheckpointMismatch: if no stage of the model continues such weights.
    """
    if kind.continues and stage not in kind.continues:
        stages = " or ".join(kind.continues)
        raise CheckpointMismatch(f"{what} is of {stage}; {kind.title} continues an export of {stages}")


def parent_fingerprint(init_from: str | None, bert: str) -> str | None:
    """SHA-256 of the tensors that trained weights descend from: those of `init_from`, else BERT's; None if random.

    Of weights that others trained, the frozen parts do not count.
    """
    if init_from is not None:
        source = find_weights(init_from)
        return fingerprint(source.state if source.own else _without_frozen_parts(source.state))
    return None if bert == RANDOM else fingerprint(read_weights(locate_bert(bert)))


def _without_frozen_parts(state: dict[str, Tensor]) -> dict[str, Tensor]:
    frozen = tuple(f"{part}." for part in FROZEN_PARTS)
    return {name: tensor for name, tensor in state.items() if not name.startswith(frozen)}
