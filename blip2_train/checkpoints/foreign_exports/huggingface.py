"""Writes a folder that transformers, 4.57 or 5, loads as its own BLIP-2: weights, configuration, processor, model card.

What transformers cannot hold goes to a folder beside the weights, so that nothing is lost on the way back.
"""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import save_torch_state_dict
from torch import Tensor
from transformers import (
    Blip2Config,
    Blip2Processor,
    BlipImageProcessor,
    GenerationConfig,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from blip2_train.checkpoints.assembly import complete_manifest, without_ties
from blip2_train.checkpoints.convert.huggingface import SIDE
from blip2_train.checkpoints.convert.huggingface_tower import describe_qformer, describe_tower
from blip2_train.checkpoints.convert.key_map import HUGGING_FACE
from blip2_train.checkpoints.convert.qkv_bias import merge_qkv_biases
from blip2_train.checkpoints.convert.transformers4 import difference_from_4, make_readable
from blip2_train.checkpoints.export import Manifest, write_export
from blip2_train.checkpoints.foreign_exports.model_card import model_card
from blip2_train.checkpoints.foreign_weights import State
from blip2_train.data.batches.processor import Processor
from blip2_train.data.batches.qformer_tokenizer import IMAGE_TOKEN
from blip2_train.errors import CheckpointMismatch
from blip2_train.models.blip2 import Blip2Model
from blip2_train.models.generative import GenerativeModel, embedding_width
from blip2_train.system.shared_files import share_as_usual

SHARD_SIZE = "5GB"
"""Largest file of weights."""
_log = logging.getLogger(__name__)


def write_huggingface(
    folder: Path, model: Blip2Model, processor: Processor, manifest: Manifest, config: str = ""
) -> Path:
    """Write a model as transformers' `Blip2ForConditionalGeneration` or `Blip2ForImageTextRetrieval`.

    Args:
        folder: Output folder; created if it does not exist.
        model: With all its weights, unquantised.
        processor: Its transform and tokenizers.
        manifest: Origin of the weights.
        config: Configuration of the run, as YAML text.

    Returns:
        The folder.

    Raises:
        CheckpointMismatch: if transformers' classes cannot hold the model, with the reason.
    """
    generative = model if isinstance(model, GenerativeModel) else None
    if generative is not None:
        _refuse_unknown(generative)
    reading = _processor(model, processor)
    image_token = int(reading.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))
    theirs, extra = _weights(model, generative, image_token)
    settings = _config(model, generative, processor, image_token, theirs)
    _check(settings, theirs, model)
    folder.mkdir(parents=True, exist_ok=True)
    save_torch_state_dict(without_ties(theirs), folder, max_shard_size=SHARD_SIZE, metadata={"format": "pt"})
    share_as_usual(*folder.glob("*.safetensors"))
    settings.save_pretrained(folder)
    if generative is not None:
        GenerationConfig.from_model_config(settings.text_config).save_pretrained(folder)
    reading.save_pretrained(folder)
    if model.text_config is not None and (other := difference_from_4(model.text_config.model_type)):
        _log.warning("%s: %s", folder, other)
    make_readable(folder, reading.tokenizer, untied_head=generative is not None and _has_own_head(generative))
    beside = {"query_tokens": model.query_tokens.detach(), **extra}
    write_export(folder / SIDE, beside, config, processor.own_tokenizer, complete_manifest(manifest, model, processor))
    kept = sorted(extra)
    (folder / "README.md").write_text(model_card(model, processor, manifest, config, kept), encoding="utf-8")
    return folder


def _refuse_unknown(model: GenerativeModel) -> None:
    """Refuse a generative model that transformers' class cannot hold."""
    if model.language_config.quantization != "none":
        raise CheckpointMismatch("a quantised language model cannot be exported; open the model without quantization")
    kind = model.text_config.model_type
    if model.is_encoder_decoder and kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise CheckpointMismatch(
            f"transformers' BLIP-2 takes a language model of the type {kind!r} for decoder-only and would leave its "
            f"encoder out, but {model.language_config.name} reads with one; share the export itself"
        )
    if model.question_to_qformer:
        raise CheckpointMismatch(
            "transformers' Blip2ForConditionalGeneration gives its Q-Former images only, but that of this model "
            "reads questions; share the export itself"
        )


def _weights(model: Blip2Model, generative: GenerativeModel | None, image_token: int) -> tuple[State, State]:
    """Weights under their names, and those that they have none for."""
    theirs: State = {}
    extra: State = {}
    for name, tensor in merge_qkv_biases(model.state_dict()).items():
        key = HUGGING_FACE.to_theirs(name)
        if key is None:
            extra[name] = tensor
        else:
            theirs[key] = tensor
    lost = [name for name in extra if not (name == "temperature" or name.startswith("lm_head."))]
    if lost:
        describe_tower(model.vision_model)  # gives the reason, if there is one
        raise CheckpointMismatch(f"transformers' BLIP-2 has no weight like {lost[0]}; choose another format")
    if generative is not None:
        for key in _vocabulary_names(generative):
            theirs[key] = _with_row_for(image_token, theirs[key])
        theirs |= {key: theirs[first] for key, first in _ties(generative).items()}
    return theirs, extra


def _vocabulary_names(model: GenerativeModel) -> list[str]:
    """Names of the tensors with one row per token."""
    rows = model.language_model.get_input_embeddings().weight, *model.output_layer()
    row_tensors = {id(tensor) for tensor in rows if tensor is not None}
    named = model.language_model.named_parameters()
    return [f"language_model.{name}" for name, parameter in named if id(parameter) in row_tensors]


def _has_own_head(model: GenerativeModel) -> bool:
    """Whether the language model's vocabulary head is another tensor than its embeddings."""
    return model.output_layer()[0] is not model.language_model.get_input_embeddings().weight


def _ties(model: GenerativeModel) -> dict[str, str]:
    """Second names of tied tensors, with the first."""
    first: dict[int, str] = {}
    ties = {}
    for name, parameter in model.language_model.named_parameters(remove_duplicate=False):
        if (known := first.setdefault(id(parameter), name)) != name:
            ties[f"language_model.{name}"] = f"language_model.{known}"
    return ties


def _with_row_for(token: int, tensor: Tensor) -> Tensor:
    """A tensor with at least `token + 1` rows; new ones are the mean of all, whose score is never the highest.

    Its probability is at most that of an average token, so that it changes no other score by more than 1 / rows.
    """
    missing = token + 1 - len(tensor)
    if missing <= 0:
        return tensor
    mean = tensor.float().mean(dim=0, keepdim=True).to(tensor.dtype)
    return torch.cat([tensor, mean.expand(missing, *tensor.shape[1:])])


def _text_config(model: GenerativeModel, processor: Processor, theirs: State) -> Any:
    """The configuration of the language model, with the special tokens that the processor uses."""
    text = copy.deepcopy(model.text_config)
    width = embedding_width(model.language_model)
    if width != text.hidden_size:
        raise CheckpointMismatch(
            f"transformers' BLIP-2 projects to the hidden size of the language model, {text.hidden_size}, but the "
            f"embeddings of {model.language_config.name} are {width} wide; choose another format"
        )
    assert processor.language_tokenizer is not None
    tokenizer = processor.language_tokenizer
    text.vocab_size = len(theirs[_vocabulary_names(model)[0]])
    ends = tokenizer.end_ids
    text.eos_token_id, text.pad_token_id = ends if len(ends) > 1 else ends[0], tokenizer.pad_id
    starts = [tokenizer.end_id] if model.is_encoder_decoder else tokenizer.start_ids
    text.bos_token_id = starts[0] if starts else text.bos_token_id  # what follows the images without a prompt
    return text


def _config(
    model: Blip2Model, generative: GenerativeModel | None, processor: Processor, image_token: int, theirs: State
) -> Any:
    qformer = model.qformer_config
    text = None if generative is None else _text_config(generative, processor, theirs)
    config = Blip2Config(
        vision_config=describe_tower(model.vision_model).to_dict(),
        qformer_config=describe_qformer(qformer, reads_text=model.matches_texts),
        num_query_tokens=qformer.num_queries,
        image_text_hidden_size=qformer.feature_size,
        image_token_index=image_token,
        **({} if text is None else {"text_config": text.to_dict()}),
    )
    config.dtype = _precision(theirs)
    config.architectures = [model.huggingface_class]
    return config


def _precision(theirs: State) -> torch.dtype:
    """The dtype for from_pretrained: 16 bits if the tower and a language model have the same."""
    parts = ("vision_model.encoder.", "language_model.")
    kinds = [{tensor.dtype for key, tensor in theirs.items() if key.startswith(part)} for part in parts]
    return kinds[0].pop() if kinds[0] == kinds[1] and len(kinds[0]) == 1 else torch.float32


def _check(config: Blip2Config, theirs: State, model: Blip2Model) -> None:
    with torch.device("meta"):
        expected = getattr(transformers, model.huggingface_class)(config).state_dict()
    wrong = [key for key in {**expected, **theirs} if key not in expected or key not in theirs]
    wrong += [key for key in expected if key in theirs and expected[key].shape != theirs[key].shape]
    if wrong:
        raise CheckpointMismatch(
            f"transformers' BLIP-2 cannot hold {sorted(wrong)[0]} of this model; choose another format"
        )


def _processor(model: Blip2Model, processor: Processor) -> Any:
    """A `Blip2Processor`, whose tokenizer has the image token."""
    speaking = processor.language_tokenizer
    tokenizer = copy.deepcopy(processor.text_tokenizer if speaking is None else speaking.tokenizer)
    if speaking is not None:
        tokenizer.padding_side = "right" if speaking.encoder_decoder else "left"
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(speaking.pad_id)
    images = BlipImageProcessor(
        size={"height": processor.image_size, "width": processor.image_size},
        image_mean=list(processor.mean),
        image_std=list(processor.std),
    )
    make: Any = Blip2Processor
    return make(images, tokenizer, num_query_tokens=model.qformer_config.num_queries)
