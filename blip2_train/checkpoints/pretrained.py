"""Opens weights of any known format; the content of a file or folder decides which it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from blip2_train.checkpoints.assembly import assemble, complete_manifest
from blip2_train.checkpoints.export import Manifest
from blip2_train.checkpoints.files import fingerprint
from blip2_train.checkpoints.foreign_weights import SourceWeights
from blip2_train.checkpoints.initial_weights import RANDOM
from blip2_train.checkpoints.load_rules import LoadReport
from blip2_train.checkpoints.weight_sources import find_weights
from blip2_train.data.batches.language_tokenizer import QUESTIONS, AnsweringTokenizer, LanguageTokenizer
from blip2_train.data.batches.processor import Processor
from blip2_train.data.batches.qformer_tokenizer import load_text_tokenizer
from blip2_train.errors import CheckpointMismatch, ConfigError
from blip2_train.models.blip2 import Blip2Model
from blip2_train.models.dtypes import DTYPES
from blip2_train.models.freezing import frozen_weights

_WHOLE = {"quantization": "none", "gradient_checkpointing": False}
BERT = "bert-base-uncased"
"""The Q-Former's tokenizer in the released models."""


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A model that is ready for use, and how it came about."""

    model: Blip2Model
    """On the CPU, in eval mode, with all its weights."""
    processor: Processor
    source: str
    """Kind of the source: `Hugging Face Blip2ForConditionalGeneration`, `LAVIS stage 2 (OPT)`, …"""
    reports: tuple[LoadReport, ...]
    manifest: Manifest
    """Origin of the weights; its architecture is complete."""
    config: str
    """Configuration of the run, as YAML text; empty for weights from elsewhere."""
    held: frozenset[str]
    """The parts, of `vision_model` and `language_model`, that the source holds itself."""


def open_pretrained(
    source: str | Path,
    *,
    dtype: str | None = None,
    quantization: str = "none",
    language_model: str | None = None,
    vision_weights: str | None = None,
    tokenizer: str | None = None,
) -> Pretrained:
    """Load a model of any known format.

    Args:
        source: Folder of an export or a run; folder or hub id of transformers' BLIP-2; LAVIS or Paddle file.
        dtype: `float32`, `float16` or `bfloat16` for the language model and the tower; None = as stored or configured.
        quantization: `none`, `int8` or `int4` for the language model.
        language_model: Folder or hub id of the language model, for sources that do not hold it.
        vision_weights: File of the tower's weights (or `timm`), for sources that do not hold them.
        tokenizer: Folder or hub id of the Q-Former's tokenizer, for sources that do not hold it.

    Raises:
        CheckpointMismatch: if the source is unknown or damaged, or its parts do not fit.
        ConfigError: if an option cannot be used.
    """
    weights = find_weights(source, language_model)
    if "kind" not in weights.description:
        raise CheckpointMismatch(f"{weights.what} does not describe its model; export the run again with this version")
    _choose(weights, dtype, quantization, language_model, vision_weights)
    processor_values = dict(weights.processor)
    if not processor_values:
        raise CheckpointMismatch(
            f"{weights.what} does not describe its processor; export the run again with this version"
        )
    model, reports = assemble(weights, quantization)
    trained_with = (weights.manifest.architecture.get("language") or {}).get("quantization", "none")
    if dtype is None and quantization == trained_with:
        _check_frozen(model, weights)
    name, tokens = _tokenizer(model, weights, tokenizer)
    queries = model.qformer_config.num_queries
    processor = Processor(**processor_values, num_query_tokens=queries, **{name: tokens})
    manifest = complete_manifest(weights.manifest, model, processor)
    return Pretrained(
        model=model,
        processor=processor,
        source=weights.source,
        reports=tuple(reports),
        manifest=manifest if dtype is None else replace(manifest, frozen_fingerprint=""),
        config=weights.config,
        held=weights.held,
    )


def _choose(
    weights: SourceWeights, dtype: str | None, quantization: str, language_model: str | None, vision_weights: str | None
) -> None:
    """Put the user's choices into the description."""
    vision, language = dict(weights.description["vision"]), dict(weights.description.get("language") or {})
    vision["gradient_checkpointing"] = False
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r} is unknown; use one of {', '.join(DTYPES)}")
    if quantization != "none" and not language:
        raise ConfigError(f"quantization={quantization} is for language models, but {weights.what} has none")
    for option, value, held in (
        ("language_model", language_model, "language_model" in weights.held and weights.tokenizer),
        ("vision_weights", vision_weights, "vision_model" in weights.held),
    ):
        if value is not None and held:
            raise ConfigError(f"{option}={value}: {weights.what} holds these weights itself; leave the option out")
    if vision_weights is not None:
        vision["weights"] = vision_weights
    if dtype is not None:
        vision |= {"dtype": dtype, "frozen": True}
    weights.description = {**weights.description, "vision": vision}
    if language:
        moved = {} if language_model is None else {"name": language_model, "weights": "pretrained"}
        chosen = {} if dtype is None else {"dtype": dtype}
        weights.description["language"] = {**language, **moved, **chosen, **_WHOLE}


def _check_frozen(model: Blip2Model, weights: SourceWeights) -> None:
    """Refuse trained weights beside other frozen parts than their own, with which they would generate nonsense."""
    expected = weights.manifest.frozen_fingerprint
    elsewhere = {"vision_model": f"vision weights {model.vision_config.weights}"}
    if model.language_config is not None:
        elsewhere["language_model"] = f"language model {model.language_config.name}"
    elsewhere = {part: name for part, name in elsewhere.items() if part not in weights.held}
    if elsewhere and expected and fingerprint(frozen_weights(model)) != expected:
        raise CheckpointMismatch(
            f"{weights.what} was trained with other frozen parts than {' and '.join(elsewhere.values())} (their "
            "SHA-256 differs); name the right ones, or train again"
        )


def _tokenizer(model: Blip2Model, weights: SourceWeights, chosen: str | None) -> tuple[str, Any]:
    """The tokenizer of a model, and what a processor calls it.

    Raises:
        CheckpointMismatch: if it is not that of the model.
    """
    if (config := model.language_config) is not None:
        location, known = weights.tokenizer or config.name, model.tokenizer_limit
        options: dict[str, Any] = {
            "padding_side": "left",
            "encoder_decoder": model.is_encoder_decoder,
            "start_token": config.start_token,
            "end_token": config.end_token,
            "pad_token": config.pad_token,
        }
        if model.question_to_qformer:
            questions = _question_tokenizer(model, weights, chosen)
            speaking: LanguageTokenizer = AnsweringTokenizer(location, questions, **options)
        else:
            speaking = LanguageTokenizer(location, **options)
        fits, name, tokens = len(speaking) <= known, "language_tokenizer", cast(Any, speaking)
    else:
        started_from, known = model.qformer_config.weights, model.tokenizer_limit
        location = chosen or weights.tokenizer or (BERT if started_from == RANDOM else started_from)
        tokens = load_text_tokenizer(location)
        fits, name = len(tokens) == known, "text_tokenizer"
    if not fits:
        raise CheckpointMismatch(
            f"the tokenizer {location} has {len(tokens)} tokens, {weights.what} expects {known}; name the one that "
            "belongs to it"
        )
    return name, tokens


def _question_tokenizer(model: Blip2Model, weights: SourceWeights, chosen: str | None) -> Any:
    """The tokenizer of a Q-Former beside a language model.

    Raises:
        CheckpointMismatch: if it is not that of the model.
    """
    location = chosen or str(Path(weights.tokenizer) / QUESTIONS)
    tokens, known = load_text_tokenizer(location), model.qformer_config.vocab_size
    if len(tokens) != known:
        raise CheckpointMismatch(
            f"the tokenizer {location} has {len(tokens)} tokens, the Q-Former of {weights.what} expects {known}; name "
            "the one that belongs to it"
        )
    return tokens
