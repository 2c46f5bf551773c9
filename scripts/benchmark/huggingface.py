"""transformers' own BLIP-2 around the very weights of a model of this project.

Shape letters: B batch, S text tokens, Q queries.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2VisionConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling

from blip2_train.checkpoints.convert.huggingface_tower import describe_qformer, describe_tower
from blip2_train.checkpoints.convert.key_map import HUGGING_FACE
from blip2_train.checkpoints.convert.qkv_bias import merge_qkv_biases
from blip2_train.errors import CheckpointMismatch
from blip2_train.models.generative import GenerativeModel
from blip2_train.models.lean_activations import SignReLU, plain_class
from blip2_train.models.vision_tower import VisionTower


class TowerOfOurs(nn.Module):
    """This project's tower under transformers' interface, for those that transformers cannot hold, or that train.

    Args:
        tower: What the model has as `vision_model`.
        norm: Its `ln_vision`.
    """

    def __init__(self, tower: nn.Module, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.tower, self.post_layernorm = tower, norm

    def forward(self, pixel_values: Tensor, **_: Any) -> BaseModelOutputWithPooling:
        """The tower's features after the layer norm."""
        features = self.tower(pixel_values).to(self.post_layernorm.weight.dtype)
        return BaseModelOutputWithPooling(last_hidden_state=self.post_layernorm(features))


def share_weights(model: GenerativeModel) -> Any:
    """A `Blip2ForConditionalGeneration` that has the parameters of `model`: what trains here, trains there.

    Its tower is transformers' own where that class can hold it, else `TowerOfOurs`.
    """
    tower = _their_tower(model)
    with torch.device("meta"):
        twin: Any = Blip2ForConditionalGeneration(_config(model, tower))
    twin.language_model = plain_view(model.language_model)
    twin.language_projection = model.language_projection
    if tower is None:
        twin.vision_model = TowerOfOurs(model.vision_model, model.ln_vision)
    else:
        twin.vision_model.post_layernorm = copy.copy(model.ln_vision)
    parts = ("qformer.", "query_tokens", *(() if tower is None else ("vision_model.",)))
    ours = {name: value for name, value in model.named_parameters() if name.startswith(parts)}
    for name, value in merge_qkv_biases(ours).items():
        _put(twin, str(HUGGING_FACE.to_theirs(name)), value)
    left = [name for name, value in twin.named_parameters() if value.is_meta]
    assert not left, f"nothing was put into {left}"
    twin.eval()
    model.train(model.training)  # the projection is the same object
    return twin


def plain_view(module: nn.Module) -> Any:
    """The same weights in transformers' own layers, without what this project lets a frozen model keep less by."""
    if isinstance(module, SignReLU):
        return nn.ReLU()
    view = copy.copy(module)  # its parameters and buffers are the very same
    view.__class__ = plain_class(type(module))
    view._modules = {name: None if part is None else plain_view(part) for name, part in module._modules.items()}
    return view


def as_loaded(twin: Any) -> Any:
    """The twin with norm and projection in the frozen parts' precision, as `from_pretrained(dtype=…)` loads it."""
    dtype = next(twin.language_model.parameters()).dtype
    view = copy.copy(twin)
    view._modules = dict(twin._modules)
    view.language_projection = copy.deepcopy(twin.language_projection).to(dtype)
    view.vision_model = copy.copy(twin.vision_model)
    view.vision_model._modules = dict(twin.vision_model._modules)
    view.vision_model.post_layernorm = copy.deepcopy(twin.vision_model.post_layernorm).to(dtype)
    return view


def image_token(model: GenerativeModel) -> int:
    """The id that stands for a query in transformers' input: the last, so that the language model need not grow."""
    return int(model.language_model.config.vocab_size) - 1


def with_image_tokens(model: GenerativeModel, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Ids and mask (int64) `(B, Q + S)` as transformers' processor makes them of texts `(B, S)`.

    Args:
        model: Whose queries and vocabulary count.
        input_ids: `(B, S)`; the id of `image_token` gives way to the one before it.
        attention_mask: `(B, S)`, bool, True = real token.
    """
    token, queries = image_token(model), model.qformer_config.num_queries
    images = input_ids.new_full((len(input_ids), queries), token)
    mask = torch.cat([torch.ones_like(images), attention_mask.long()], dim=1)
    return torch.cat([images, input_ids.clamp(max=token - 1)], dim=1), mask


def _their_tower(model: GenerativeModel) -> Blip2VisionConfig | None:
    if not isinstance(model.vision_model, VisionTower) or not model.vision_model.frozen:
        return None  # one that trains may have biases that are others' halves
    try:
        return describe_tower(model.vision_model)
    except CheckpointMismatch:
        return None


def _config(model: GenerativeModel, tower: Blip2VisionConfig | None) -> Blip2Config:
    qformer, text = model.qformer_config, model.language_model.config
    smallest = Blip2VisionConfig(hidden_size=model.vision_model.width, num_attention_heads=1, num_hidden_layers=1)
    return Blip2Config(
        vision_config=(tower or smallest).to_dict(),
        qformer_config=describe_qformer(qformer, reads_text=False),
        text_config=text.to_dict(),
        num_query_tokens=qformer.num_queries,
        image_token_index=image_token(model),
    )


def _put(module: nn.Module, name: str, value: Tensor) -> None:
    """Let a parameter be `value` itself, not a copy."""
    path, _, leaf = name.rpartition(".")
    shared = value if isinstance(value, nn.Parameter) else nn.Parameter(value, requires_grad=False)
    owner = module.get_submodule(path)
    assert owner.get_parameter(leaf).shape == shared.shape, f"{name}: {tuple(shared.shape)}"
    setattr(owner, leaf, shared)
