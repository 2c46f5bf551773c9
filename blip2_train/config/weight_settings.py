"""Settings of the model that come with given weights: they replace those of recipes, not of the command line.

A recipe names a tower, a Q-Former, a language model and a tokenizer. Weights that are given bring their own: those of
`init_from` and `model.qformer.weights`, and the models named by `model.vision.name` and `model.language.name`. Image
size, precision, dropout, what trains, steps and optimiser stay the recipe's. What the command line sets is compared
with the weights and refused by name where it contradicts them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from blip2_train.checkpoints.architecture import described_tower, with_local_paths
from blip2_train.checkpoints.convert.bert_config import bert_tokenizer, read_bert_config
from blip2_train.checkpoints.frozen_parts import LANGUAGE_MODEL, VISION_MODEL
from blip2_train.checkpoints.initial_weights import refuse_stage
from blip2_train.checkpoints.text_half import holds_text_half
from blip2_train.checkpoints.weight_sources import SourceDescription, describe_source, same_location
from blip2_train.config.given_settings import RANDOM, Settings
from blip2_train.config.strict_keys import find_target
from blip2_train.config.tower_normalisation import brought_by_weights
from blip2_train.data.batches.language_tokenizer import QUESTIONS
from blip2_train.data.batches.qformer_tokenizer import load_qformer_tokenizer, load_text_tokenizer
from blip2_train.errors import Blip2TrainError, ConfigError
from blip2_train.models.blip2 import Blip2Model
from blip2_train.models.configs import LanguageModelConfig, QFormerConfig, VisionConfig, find_family
from blip2_train.models.image_text import ImageTextModel
from blip2_train.models.language_model import language_model_architecture
from blip2_train.training.earlier_runs import find_export

_TOWER = ("name", "dropped_blocks", "overrides")
_RECIPES_OWN = (
    "weights",
    "dropout",
    "attention_dropout",
    "initializer_range",
    "pack_text",
    "gradient_checkpointing",
    "frozen",
)
"""Of a Q-Former's settings, those that a training chooses."""
_TEXT_SIZES = ("vocab_size", "max_positions", "feature_size")
"""Of a Q-Former's text half, which weights of stage 2 have only if it reads questions."""
_TOKENS = ("start_token", "end_token", "pad_token")
log = logging.getLogger(__name__)
_TARGETS = {False: "load_decoder_only_collator", True: "load_encoder_decoder_collator"}
_OPTIONS = {False: "decoder_only", True: "encoder_decoder"}
"""Collators of captions by whether the language model has an encoder."""


def fit_to_weights(
    config: DictConfig,
    given: frozenset[str],
    option: Mapping[str, Any],
    collator_option: Callable[[str], DictConfig] | None = None,
) -> None:
    """Fit a composed training configuration, whose interpolations still stand, to the weights that it names.

    Weights that do not exist are left alone: loading them reports that.

    Args:
        config: Changed in place.
        given: Full paths of the keys that the command line set.
        option: The model of recipe and options alone (`model_of_option`).
        collator_option: Gives an option of the group `collator`, for language models of another kind than the recipe's;
            None = the command line chose one.

    Raises:
        ConfigError: if the command line contradicts the weights.
        CheckpointMismatch: if the recipe's model does not continue weights of that stage.
    """
    settings = Settings(config, given)
    source, text_source = _source(settings, "init_from"), _source(settings, "init_text_from")
    vision, language = option.get("vision") or {}, option.get("language") or {}
    if settings.is_given("model.vision.name") and settings.get("model.vision.name") != vision.get("name"):
        _forget_tower(settings)
    if settings.is_given("model.vision.weights"):
        for key, numbers in brought_by_weights(settings.get("model.vision.weights")).items():
            settings.put(f"model.vision.{key}", numbers)
    if settings.is_given("model.language.name") and not _is_same_model(settings, language):
        _forget_language_model(settings)
    if source is not None:
        kind = find_target("model", settings.get("model._target_"))
        if isinstance(kind, type) and issubclass(kind, Blip2Model):
            refuse_stage(kind, source.stage, source.what)
        _follow_tower(settings, source, vision)
        _follow_language_model(settings, source, language)
        _follow_qformer(settings, source)
    else:
        _follow_bert(settings)
    if text_source is not None and settings.get("model.question_to_qformer"):
        _follow_text_half(settings, text_source)
    if settings.get("model.language") != (option.get("language") or None):
        _follow_kind(settings, collator_option)


def _source(settings: Settings, key: str) -> SourceDescription | None:
    """The description of what `init_from` or `init_text_from` names; None if nothing that can be read."""
    named = settings.get(key)
    if named is None:
        return None
    language_model = settings.get("model.language.name") if settings.is_given("model.language.name") else None
    try:
        location = find_export(str(named), str(settings.get("paths.output_dir")), key)
        path = Path(location).expanduser()
        source = describe_source(str(path.resolve()) if path.exists() else location, language_model)
    except Blip2TrainError:
        return None
    return source if source.architecture else None


def _forget_tower(settings: Settings) -> None:
    """Remove the settings that an option has for its own tower."""
    settings.put("model.vision.overrides", {})
    settings.put("model.vision.weights", "timm")
    settings.put("model.vision.mean", None)
    settings.put("model.vision.std", None)


def _forget_language_model(settings: Settings) -> None:
    """Remove the settings that an option has for its own language model: the other one brings its own."""
    settings.put("model.language.architecture", None)
    settings.put("model.language.overrides", {})
    for token in _TOKENS:
        settings.put(f"model.language.{token}", None)


def _is_same_model(settings: Settings, option: Mapping[str, Any]) -> bool:
    """Whether the named language model is the option's at another path: it has all the sizes that the option has."""
    named = settings.get("model.language.name")
    if named == option.get("name"):
        return True
    expected = option.get("architecture")
    here_ = _architecture({"name": named})
    if expected is None:
        there = _architecture({"name": option.get("name")})
        expected = None if there is None else there.to_dict()
    if here_ is None or expected is None:
        return False
    own = here_.to_dict()
    return all(own.get(key) == value for key, value in expected.items() if not key.startswith(("_", "transformers_")))


def _contradiction(named: str, language: Mapping[str, Any]) -> str:
    """In which size a language model is another one than weights were trained with; empty if in none that is known."""
    one, other = _architecture({"name": named}), _architecture({**language, "overrides": {}})
    if one is None or other is None:
        return ""
    for key in ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"):
        own, their = getattr(one, key, None), getattr(other, key, None)
        if own != their:
            return f"{key} is {own}, not {their}"
    return ""


def _architecture(language: Mapping[str, Any]) -> Any:
    """The configuration of a language model in transformers' terms; None if it cannot be read."""
    try:
        return language_model_architecture(LanguageModelConfig(**{k: v for k, v in language.items() if k[0] != "_"}))
    except (Blip2TrainError, TypeError):
        return None


def _follow_tower(settings: Settings, source: SourceDescription, option: Mapping[str, Any]) -> None:
    family, target = source.architecture["vision"].get("family"), settings.get("model.vision._target_")
    kind = find_target("model.vision", target)
    if isinstance(kind, type) and kind is not find_family(family):
        raise ConfigError(
            f"{source.what} has a vision tower of {family or 'timm'}, and the recipe one of {target}: pass the option "
            "model/vision_model=<its family>"
        )
    tower = described_tower(source.architecture)
    theirs = asdict(tower)
    held = VISION_MODEL in source.held
    if held and settings.is_given("model.vision.weights"):
        raise ConfigError(
            f"model.vision.weights={settings.get('model.vision.weights')}: {source.what} holds its tower itself; leave "
            "model.vision.weights out"
        )
    changed = theirs["name"] != option.get("name")
    own = () if family is None else tuple(theirs.keys() - {one.name for one in fields(VisionConfig)})
    for key in (*_TOWER, *own):
        settings.follow(f"model.vision.{key}", theirs[key], source.what)
    for key in ("mean", "std"):
        if (value := source.processor.get(key)) is not None:
            settings.follow(f"model.vision.{key}", list(value), source.what)
    if held:
        settings.put("model.vision.weights", source.location)
    elif changed or not source.foreign:  # of the released files, only this project's table names the tower's weights
        settings.put("model.vision.weights", theirs["weights"])


def _follow_qformer(settings: Settings, source: SourceDescription) -> None:
    written = with_local_paths(source.architecture["qformer"])
    theirs = asdict(QFormerConfig(**written))
    reads_text = holds_text_half(source.stage, source.architecture)
    left_out = _RECIPES_OWN if reads_text else (*_RECIPES_OWN, *_TEXT_SIZES)
    for key in theirs:
        if key not in left_out:
            settings.follow(f"model.qformer.{key}", theirs[key], source.what)
    if reads_text:
        _follow_tokenizer(settings, source)
    if settings.is_given("model.qformer.weights"):
        named = settings.get("model.qformer.weights")
        if named not in (RANDOM, theirs["weights"]):
            raise ConfigError(
                f"model.qformer.weights={named}: {source.what} holds its Q-Former itself; leave model.qformer.weights "
                "out"
            )
    settings.put("model.qformer.weights", theirs["weights"])


def _follow_text_half(settings: Settings, source: SourceDescription) -> None:
    theirs = asdict(QFormerConfig(**with_local_paths(source.architecture["qformer"])))
    for key in _TEXT_SIZES:
        settings.follow(f"model.qformer.{key}", theirs[key], source.what)
    _follow_tokenizer(settings, source)


def _follow_tokenizer(settings: Settings, source: SourceDescription) -> None:
    """Take the Q-Former's tokenizer from the source of its text half, unless the recipe's is the same and lies here.

    Raises:
        ConfigError: if the command line named one with another vocabulary.
    """
    if not source.tokenizer:
        return
    theirs = source.tokenizer if source.stage == ImageTextModel.stage else str(Path(source.tokenizer) / QUESTIONS)
    own, given = str(settings.get("tokenizer")), settings.is_given("tokenizer")
    if given or Path(own).expanduser().exists():
        try:
            own_tokenizer, their_tokenizer = (load_text_tokenizer(tokenizer_path) for tokenizer_path in (own, theirs))
        except Blip2TrainError:  # the run reports what is wrong with it
            return
        if own_tokenizer.get_vocab() == their_tokenizer.get_vocab():
            return
        if given:
            raise ConfigError(
                f"tokenizer={own} contradicts {source.what}, whose Q-Former has another vocabulary: leave tokenizer out"
            )
    settings.put("tokenizer", theirs)


def _follow_language_model(settings: Settings, source: SourceDescription, option: Mapping[str, Any]) -> None:
    written = source.architecture.get("language")
    if settings.get("model.language") is None or source.stage == ImageTextModel.stage or not written:
        return
    theirs = asdict(LanguageModelConfig(**with_local_paths(written)))
    name = settings.get("model.language.name")
    if LANGUAGE_MODEL in source.held:
        if settings.is_given("model.language.name") and not same_location(name, source.location):
            raise ConfigError(
                f"model.language.name={name}: {source.what} holds its language model itself; leave "
                "model.language.name out"
            )
        settings.put("model.language.name", source.location)
        settings.follow("model.language.weights", "pretrained", source.what)
        if (tokenizer := source.tokenizer or theirs["name"]) != source.location:
            settings.put("collator.name", tokenizer)
    else:
        if settings.is_given("model.language.name") and (why := _contradiction(str(name), theirs)):
            raise ConfigError(
                f"model.language.name={name} contradicts {source.what}, which was trained with {theirs['name']}: "
                f"{why}; leave model.language.name out, or name the same model at another path"
            )
        settings.put("model.language.name", theirs["name"])
        if not settings.is_given("model.language.name"):
            settings.put("model.language.weights", theirs["weights"])
    if theirs["architecture"] is not None or settings.get("model.language.name") != option.get("name"):
        settings.put("model.language.architecture", theirs["architecture"])
    settings.follow("model.language.overrides", theirs["overrides"], source.what)
    for token in _TOKENS:
        settings.put(f"model.language.{token}", theirs[token])


def _follow_bert(settings: Settings) -> None:
    """Take the Q-Former's sizes from the BERT it starts from; of the hub only if the command line named it."""
    weights = settings.get("model.qformer.weights")
    if weights == RANDOM and settings.is_given("tokenizer"):
        _follow_vocabulary(settings, str(settings.get("tokenizer")))
    if weights in (None, RANDOM):
        return
    given = settings.is_given("model.qformer.weights")
    if not given and not Path(weights).expanduser().is_dir():
        return
    try:
        tokenizer = settings.get("tokenizer") if settings.is_given("tokenizer") else None
        theirs = read_bert_config(str(weights), tokenizer)
    except ConfigError:
        raise
    except Blip2TrainError:
        return
    for key, value in theirs.items():
        settings.follow(f"model.qformer.{key}", value, f"model.qformer.weights={weights}")
    if given and (tokenizer_path := bert_tokenizer(str(weights))) is not None:
        settings.put("tokenizer", tokenizer_path)


def _follow_vocabulary(settings: Settings, tokenizer: str) -> None:
    """Fit a Q-Former with random weights to the tokenizer that the command line named."""
    try:
        tokens = len(load_qformer_tokenizer(tokenizer))
    except Blip2TrainError:  # the run reports what is wrong with it
        return
    settings.follow("model.qformer.vocab_size", tokens, f"tokenizer={tokenizer}")


def _follow_kind(settings: Settings, collator_option: Callable[[str], DictConfig] | None) -> None:
    """Fit collator and precision to whether the language model has an encoder."""
    language = settings.get("model.language")
    architecture = None if language is None else _architecture(language)
    if architecture is None:
        return
    reads = bool(architecture.is_encoder_decoder)
    if "t5" in architecture.model_type and language.get("dtype") == "float16":  # it overflows there
        settings.put("model.language.dtype", "bfloat16")
    collator = settings.get("collator") or {}
    replaced = str(collator.get("_target_", "")).endswith(_TARGETS[not reads])
    if (replaced and collator_option is not None) or collator.get("encoder_decoder", reads) != reads:
        log.warning(
            "the language model %s has %s encoder, that of the recipe %s: texts are prepared as it needs, the rest "
            "stays the recipe's, its name too",
            language.get("name"),
            *(("an", "none") if reads else ("no", "one")),
        )
    if "encoder_decoder" in collator:
        settings.put("collator.encoder_decoder", reads)
    elif replaced and collator_option is not None:
        other = collator_option(_OPTIONS[reads])
        prompt = collator.get("prompt", "")
        other["prompt"] = prompt
        if "split_prefix" in other and prompt:  # a prompt replaces the prefix
            other["split_prefix"] = False
        if (name := settings.get("collator.name")) != settings.get("model.language.name"):
            other["name"] = name
        settings.put("collator", other)
