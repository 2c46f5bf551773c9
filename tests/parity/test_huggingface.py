"""The passes equal those of transformers' own BLIP-2 with the same random weights, in values and gradients.

In float64, so that the bound can be far below the rounding of float32.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from reference_cases import double_model, global_batch
from tiny import VOCABULARY
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    BertConfig,
    Blip2Config,
    Blip2ForImageTextRetrieval,
    Blip2QFormerConfig,
    Blip2VisionConfig,
)
from transformers.models.bert.modeling_bert import BertLMPredictionHead

from blip2_train.models.image_text import ImageTextModel
from blip2_train.objectives.representation import RepresentationObjective

TOWER = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj": "embeddings.patch_embedding",
}
BLOCK = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.qkv": "self_attn.qkv",
    "attn.proj": "self_attn.projection",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def their_name(name: str) -> str | None:
    """Name of one of our parameters in transformers; None for the language-modelling head and the temperature."""
    if name == "temperature" or name.startswith("lm_head."):
        return None
    if name.startswith("ln_vision."):
        return name.replace("ln_vision", "vision_model.post_layernorm")
    if not name.startswith("vision_model.tower."):
        return name
    rest = name.removeprefix("vision_model.tower.")
    if block := re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", rest):
        number, part, kind = block.groups()
        return f"vision_model.encoder.layers.{number}.{BLOCK[part]}.{kind}"
    stem = rest.removesuffix(".weight").removesuffix(".bias")
    return f"vision_model.{TOWER[stem]}{rest[len(stem) :]}"


class Theirs(nn.Module):
    """transformers' retrieval model, and BERT's prediction head, which that model lacks."""

    def __init__(self, ours: ImageTextModel) -> None:
        super().__init__()
        size = ours.qformer_config
        text = {"vocab_size": VOCABULARY, "hidden_size": size.hidden_size, "layer_norm_eps": size.layer_norm_eps}
        config = Blip2Config(
            vision_config=Blip2VisionConfig(
                hidden_size=24,
                intermediate_size=96,
                num_hidden_layers=2,
                num_attention_heads=2,
                image_size=32,
                patch_size=8,
                layer_norm_eps=1e-6,
            ).to_dict(),
            qformer_config=Blip2QFormerConfig(
                **text,
                num_hidden_layers=size.num_layers,
                num_attention_heads=size.num_heads,
                intermediate_size=size.intermediate_size,
                max_position_embeddings=size.max_positions,
                cross_attention_frequency=size.cross_attention_every,
                encoder_hidden_size=24,
                use_qformer_text_input=True,
            ).to_dict(),
            num_query_tokens=size.num_queries,
            image_text_hidden_size=size.feature_size,
            image_token_index=None,
        )
        self.model = Blip2ForImageTextRetrieval(config).eval()
        weights = {new: value for name, value in ours.state_dict().items() if (new := their_name(name))}
        self.model.load_state_dict(weights, strict=True)
        self.head = BertLMPredictionHead(BertConfig(**text, hidden_act="gelu"))
        self.head.transform.load_state_dict({k: v for k, v in ours.lm_head.state_dict().items() if k != "bias"})
        self.head.decoder.weight = self.model.embeddings.word_embeddings.weight
        self.head.decoder.bias = nn.Parameter(ours.lm_head.bias.detach().clone())

    def caption_logits(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """One joint pass over `[queries ; text]` under an explicit four-dimensional mask."""
        model, count = self.model, len(input_ids)
        images = model.vision_model(pixel_values).last_hidden_state
        queries = model.query_tokens.expand(count, -1, -1)
        length, number = input_ids.shape[1], queries.shape[1]
        mask = torch.zeros(count, 1, number + length, number + length, dtype=torch.bool)
        mask[..., :number] = True
        mask[:, :, number:, number:] = attention_mask[:, None, None] & torch.ones(length, length).tril().bool()
        states = model.qformer(
            query_embeds=model.embeddings(input_ids=input_ids, query_embeds=queries),
            query_length=number,
            attention_mask=mask,
            encoder_hidden_states=images,
        ).last_hidden_state
        return self.head(states[:, number:])


@pytest.fixture
def models() -> tuple[ImageTextModel, Theirs]:
    ours = double_model()
    ours.vision_model.tower.requires_grad_(True)
    ours.vision_model.frozen = False
    ours.ln_vision.eps = 1e-6
    return ours, Theirs(ours).double()


def assert_same_gradients(ours: ImageTextModel, theirs: Theirs) -> None:
    """Every gradient relative to its own largest entry, or a thousandth of the largest of all."""
    named = dict(theirs.model.named_parameters())
    pairs = {
        name: (parameter.grad, named[other].grad)
        for name, parameter in ours.named_parameters()
        if (other := their_name(name)) is not None
    }
    for name in ("query_tokens", "qformer.encoder.layer.0.crossattention.attention.key.weight", "ln_vision.bias"):
        assert pairs[name][0].abs().max() > 0, f"nothing reaches {name}"
    largest = max(grad.abs().max() for _, grad in pairs.values() if grad is not None)
    for name, (grad, expected) in pairs.items():
        if expected is None or grad is None:
            assert all(g is None or not g.any() for g in (grad, expected)), name
            continue
        scale = max(expected.abs().max(), 1e-3 * largest)
        assert (grad - expected).abs().max() <= 1e-9 * scale, name


def assert_close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


def test_every_weight_has_a_name_there(models: Any) -> None:
    ours, theirs = models
    names = [their_name(name) for name, _ in ours.named_parameters()]
    assert sorted(name for name in names if name) == sorted(name for name, _ in theirs.model.named_parameters())


def test_contrast(models: Any) -> None:
    """The unimodal mask, the similarity, and the loss's gradients down to the temperature."""
    ours, theirs = models
    batch = global_batch(5, "distinct")
    objective = RepresentationObjective(itm_weight=0.0, itg_weight=0.0, gather="full")
    output = objective(ours, batch, torch.Generator())
    output.total.backward()

    similarity = theirs.model(batch.pixel_values, batch.input_ids, batch.attention_mask.long()).logits_per_image
    temperature = ours.temperature.detach().clone().requires_grad_()
    labels = torch.arange(5)
    loss = sum(F.cross_entropy(x / temperature, labels, label_smoothing=0.1) for x in (similarity, similarity.T)) / 2
    loss.backward()

    images = ours.encode_image(batch.pixel_values).image_features
    texts = ours.encode_text(batch.input_ids, batch.attention_mask)
    assert_close(torch.einsum("mqe,ne->mnq", images, texts).amax(dim=2), similarity)
    assert_close(output.terms["itc"], loss)
    torch.testing.assert_close(ours.temperature.grad, temperature.grad, rtol=1e-9, atol=0)
    assert_same_gradients(ours, theirs)


def test_matching(models: Any) -> None:
    """The bidirectional mask and the head, with images that serve several pairs."""
    ours, theirs = models
    batch = global_batch(4, "distinct")
    texts, images = [0, 1, 2, 3, 1, 2, 3, 0, 0, 1], [0, 1, 2, 3, 0, 1, 2, 3, 2, 3]
    ids, mask = batch.input_ids[texts], batch.attention_mask[texts]
    image_kv = ours.encode_image(batch.pixel_values).image_kv
    actual = ours.match([image_kv.repeat(2), image_kv.select(torch.tensor([2, 3]))], ids, mask)
    expected = theirs.model(
        batch.pixel_values[images], ids, mask.long(), use_image_text_matching_head=True
    ).logits_per_image
    assert_close(actual, expected)
    labels = torch.tensor([1] * 4 + [0] * 6)
    for logits in (actual, expected):
        F.cross_entropy(logits, labels).backward()
    assert_same_gradients(ours, theirs)


def test_generation(models: Any) -> None:
    """The multimodal causal mask: text through the cache of the image pass is one joint pass under that mask."""
    ours, theirs = models
    batch = global_batch(4, "distinct")
    ids = batch.input_ids.clone()
    ids[:, 0] = ours.decoder_start_token_id
    actual = ours.caption_logits(ours.encode_image(batch.pixel_values), ids, batch.attention_mask)
    expected = theirs.caption_logits(batch.pixel_values, ids, batch.attention_mask)
    real = batch.attention_mask
    assert_close(actual, expected[real])
    predicting = real & (real.cumsum(dim=1) < real.sum(dim=1, keepdim=True))
    for logits in (actual[predicting[real]], expected[predicting]):
        F.cross_entropy(logits, ids[:, 1:][real[:, 1:]]).backward()
    assert_same_gradients(ours, theirs)
    for name in ("dense", "LayerNorm"):
        mine, other = getattr(ours.lm_head, name).weight.grad, getattr(theirs.head.transform, name).weight.grad
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(ours.lm_head.bias.grad, theirs.head.decoder.bias.grad, rtol=1e-9, atol=1e-12)
