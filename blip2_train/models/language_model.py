"""The frozen language model: any causal or sequence-to-sequence model of transformers, and how gradients pass it.

Shape letters: B batch, L tokens, D hidden size, V vocabulary.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PretrainedConfig, PreTrainedModel

from blip2_train.errors import ConfigError
from blip2_train.from_transformers import empty_model, load_config, make_config
from blip2_train.language_files import locate_language_model
from blip2_train.models.architecture_keys import architecture_keys
from blip2_train.models.configs import LanguageModelConfig
from blip2_train.models.dtypes import DTYPES
from blip2_train.models.lean_activations import keep_less
from blip2_train.models.quantization import quantize_language_model
from blip2_train.system.error_reasons import reason_of

_log = logging.getLogger(__name__)
FLOAT16_GRADIENT_SCALE = 1024.0
"""Factor on gradients inside a float16 language model: those of a mean over thousands of tokens would vanish there."""
_OVERFLOWING = ("t5", "mt5", "umt5", "longt5")
"""Families whose activations leave the range of float16."""
_SCALED_LOGITS = ("final_logit_softcapping", "logits_soft_cap", "logit_scale", "logits_scaling")
_OTHER_LOSSES = {
    "mbart": "starts its decoder with the language token behind the labels",
    "plbart": "starts its decoder with the language token behind the labels",
    "prophetnet": "predicts several tokens at once",
}
"""Families whose own loss is another than that of the next token, by what they do."""
_IMPLEMENTATIONS = ("_attn_implementation", "_experts_implementation")
"""What a person may choose beside sizes: with which of its functions transformers computes."""
_DROPOUTS = (
    "dropout attention_dropout activation_dropout dropout_rate resid_pdrop embd_pdrop attn_pdrop hidden_dropout "
    "hidden_dropout_prob attention_probs_dropout_prob layerdrop"
).split()


def language_model_architecture(config: LanguageModelConfig) -> PretrainedConfig:
    """The configuration, in transformers' terms, of a language model, with the recipe's overrides.

    Raises:
        ConfigError: if transformers does not know it, `name` cannot be read, or an override changes nothing.
        CheckpointMismatch: if `name` is no language model but something else.
    """
    try:
        if config.architecture is not None:
            architecture: PretrainedConfig = make_config(config.architecture)
        else:
            architecture = load_config(AutoConfig, locate_language_model(config.name))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"language model {config.name!r} has no configuration that transformers can read "
            f"({reason_of(error)}); give a folder with config.json, a hub id, or "
            "model.language.architecture"
        ) from error
    known = architecture_keys(type(architecture))
    for key, value in config.overrides.items():
        if key not in known and key not in _IMPLEMENTATIONS:
            raise ConfigError(f"language override {key!r}: a {architecture.model_type} configuration has no such key")
        setattr(architecture, key, value)
    if architecture.is_encoder_decoder and getattr(architecture, "decoder_start_token_id", None) is None:
        raise ConfigError(
            f"language model {config.name!r} does not state decoder_start_token_id, what its decoder reads first; add "
            "it to its config.json, or to model.language.architecture"
        )
    scaled = [key for key in _SCALED_LOGITS if getattr(architecture, key, None) not in (None, 1, 1.0)]
    if scaled:
        raise ConfigError(
            f"language model {config.name!r} changes its logits by {scaled[0]}, which the chunked loss does not know; "
            "choose another model"
        )
    if (reason := _OTHER_LOSSES.get(architecture.model_type)) is not None:
        raise ConfigError(
            f"language model {config.name!r} is a {architecture.model_type}, which {reason}; its loss is not that of "
            "the next token: choose another model"
        )
    if config.gradient_checkpointing and not config.dropout:  # checkpointing acts in training mode only
        for key in _DROPOUTS:
            if hasattr(architecture, key):
                setattr(architecture, key, 0.0)
    return architecture


def build_language_model(config: LanguageModelConfig) -> PreTrainedModel:
    """The language model of a configuration, frozen.

    With `weights: random` it has random weights; otherwise it lies on the meta device, without memory, until
    `load_language_model` replaces it. With `quantization` its linear layers are `QuantizedLinear`.
    """
    architecture = language_model_architecture(config)
    if config.dtype == "float16" and architecture.model_type in _OVERFLOWING:
        _log.warning(
            "language model %s in float16: a %s overflows there; set model.language.dtype=bfloat16",
            config.name,
            architecture.model_type,
        )
    family = AutoModelForSeq2SeqLM if architecture.is_encoder_decoder else AutoModelForCausalLM
    try:
        with torch.device("meta" if config.weights != "random" else torch.get_default_device()):
            model: PreTrainedModel = empty_model(family, architecture, dtype=DTYPES[config.dtype])
    except (ValueError, TypeError) as error:
        raise ConfigError(f"language model {config.name!r} cannot be built: {reason_of(error)}") from error
    if getattr(architecture, "scale_decoder_outputs", True) is False:  # T5 with its own head, which would be tied
        head = cast(nn.Linear, model.get_output_embeddings())
        head.weight = nn.Parameter(head.weight.detach().clone())
    quantize_language_model(model, config.quantization)
    return freeze_language_model(model, config)


def freeze_language_model(model: PreTrainedModel, config: LanguageModelConfig) -> PreTrainedModel:
    """Take a language model out of training, and let it keep no more for the backward pass than that needs."""
    model.requires_grad_(False)
    model.eval()
    keep_less(model)
    if config.gradient_checkpointing:
        enable = getattr(
            model, "activation_checkpointing_enable", model.gradient_checkpointing_enable
        )  # renamed in 5.2x
        enable({"use_reentrant": False})
    return model


def own_precision(model: nn.Module, device: torch.device) -> AbstractContextManager[Any]:
    """Switches autocast off around a frozen model with 16-bit weights: it computes in them, without casts."""
    if next(model.parameters()).dtype in (torch.float16, torch.bfloat16):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


def scale_gradient(values: Tensor, factor: float) -> Tensor:
    """The same values; their gradient is multiplied by `factor`."""
    scaled: Tensor = _ScaleGradient.apply(values, factor)
    return scaled


def left_padded(embeddings: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Move what is masked to the front of each row, the rest keeping its order.

    Args:
        embeddings: `(B, L, D)`.
        mask: `(B, L)`, 1 or True = real.

    Example:
        >>> left_padded(torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[True, False, True]]))[0].flatten()
        tensor([2., 1., 3.])
    """
    order = mask.int().argsort(dim=1, stable=True)
    return embeddings.gather(1, order[:, :, None].expand_as(embeddings)), mask.gather(1, order)


def right_padded(embeddings: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Move what is masked to the end of each row, the rest keeping its order; as `left_padded`.

    Example:
        >>> right_padded(torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[True, False, True]]))[0].flatten()
        tensor([1., 3., 2.])
    """
    order = mask.int().argsort(dim=1, stable=True, descending=True)
    return embeddings.gather(1, order[:, :, None].expand_as(embeddings)), mask.gather(1, order)
