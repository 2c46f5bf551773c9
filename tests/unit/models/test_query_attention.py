"""The recomputed weights of a cross-attention are those with which the model's fast pass reads the image."""

from typing import Any

import pytest
import torch
from tiny import image_text_batch, image_text_model
from tiny_generation import generative_model
from torch import Tensor

from blip2_train.models.attention import Attention
from blip2_train.models.blip2 import Blip2Model
from blip2_train.models.masks import bidirectional
from blip2_train.models.query_attention import cross_attention, query_attention
from blip2_train.types import ImageKeyValues

NO_CLASS_TOKEN = {"class_token": False, "global_pool": "avg"}
TOWERS: dict[str, dict[str, Any]] = {
    "class token": {},
    "none": NO_CLASS_TOKEN,
    "registers": {"reg_tokens": 3},
}


def model_of(kind: str, tower: str) -> Blip2Model:
    base = {"patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}
    vision = {"overrides": base | TOWERS[tower]}
    model = image_text_model(vision=vision) if kind == "stage 1" else generative_model("opt", vision=vision)
    return model.eval().double()


def reads_of_a_pass(model: Blip2Model, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Attention, Tensor, Tensor]]:
    """Record what goes into and comes out of `scaled_dot_product_attention` wherever an image is read."""
    actual = []
    read, attend = Attention.read_images, Attention.attend
    contexts: list[Tensor] = []

    def recording_attend(self: Attention, *arguments: Any) -> Tensor:
        contexts.append(attend(self, *arguments))
        return contexts[-1]

    def recording_read(self: Attention, states: Tensor, image_kvs: list[Any]) -> Tensor:
        output = read(self, states, image_kvs)
        actual.append((self, states, contexts[-1]))
        return output

    monkeypatch.setattr(Attention, "attend", recording_attend)
    monkeypatch.setattr(Attention, "read_images", recording_read)
    return actual


@pytest.mark.slow
@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("kind", ["stage 1", "generative"])
@pytest.mark.parametrize("layer", [0, 1, -1])
def test_weights_times_values_is_what_the_fast_pass_reads(
    kind: str, tower: str, layer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, images = model_of(kind, tower), torch.randn(3, 3, 32, 32, dtype=torch.float64)
    image_kv = model.project_image(model.vision_model(images).double())
    reads = reads_of_a_pass(model, monkeypatch)
    with torch.no_grad():
        model.image_pass(image_kv)
    monkeypatch.undo()
    queries = model.query_tokens.expand(3, -1, -1)
    actual = cross_attention(model.qformer, queries, image_kv, num_queries=4, layer=layer)
    _, states, context = reads[layer]
    assert len(reads) == 2
    torch.testing.assert_close(actual.states, states, rtol=0, atol=1e-12)
    torch.testing.assert_close(actual.weights @ image_kv.values[layer], context, rtol=0, atol=1e-6)
    torch.testing.assert_close(actual.weights.sum(-1), torch.ones(3, 2, 4, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["stage 1", "generative"])
@pytest.mark.parametrize(("tower", "others"), [("class token", 1), ("none", 0), ("registers", 4)])
def test_maps_are_the_mean_over_heads_without_the_class_token(kind: str, tower: str, others: int) -> None:
    model, images = model_of(kind, tower), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    image_kv = model.project_image(model.vision_model(images).double())
    weights = cross_attention(model.qformer, model.query_tokens.expand(2, -1, -1), image_kv, num_queries=4).weights
    assert weights.shape == (2, 2, 4, 16 + others)
    maps = query_attention(model, images)
    assert maps.shape == (2, 4, 4, 4) and not maps.requires_grad
    torch.testing.assert_close(maps.flatten(2), weights.mean(1)[:, :, others:])
    assert bool((maps.sum((2, 3)) < 1).all()) is bool(others)


def test_a_patch_that_the_keys_point_at_is_where_the_map_is_bright() -> None:
    model = model_of("stage 1", "class token")
    images = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    image_kv = model.project_image(model.vision_model(images).double())
    queries = model.query_tokens
    before = cross_attention(model.qformer, queries, image_kv, num_queries=4)
    block = [layer for layer in model.qformer.layers if layer.crossattention is not None][-1]
    assert block.crossattention is not None
    query = block.crossattention.split_heads(block.crossattention.attention.query(before.states))
    patch = 1 + 2 * 4 + 3  # row 2, column 3, behind the class token
    key = image_kv.keys[-1].clone()
    key[:, :, patch] += 100 * query[:, :, 1]  # query 1 of every head finds what it asks for
    image_kv = ImageKeyValues(keys=(*image_kv.keys[:-1], key), values=image_kv.values)
    after = cross_attention(model.qformer, queries, image_kv, num_queries=4).weights
    maps = after.mean(1)[:, :, 1:].unflatten(2, (4, 4))
    assert maps[0, 1].flatten().argmax() == 11 and maps[0, 1, 2, 3] > 0.99


def test_text_beside_the_queries_changes_the_map_as_in_the_matching_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = model_of("stage 1", "class token"), image_text_batch(3)
    images = batch.pixel_values.double()
    image_kv = model.project_image(model.vision_model(images).double())
    reads = reads_of_a_pass(model, monkeypatch)
    with torch.no_grad():
        model.match([image_kv], batch.input_ids, batch.attention_mask)  # type: ignore[operator]
    monkeypatch.undo()
    text = model.embeddings(batch.input_ids)  # type: ignore[operator]
    joint = torch.cat([model.query_tokens.expand(3, -1, -1), text], dim=1)
    mask = bidirectional(batch.attention_mask, 4)
    actual = cross_attention(model.qformer, joint, image_kv, num_queries=4, mask=mask)
    torch.testing.assert_close(actual.weights @ image_kv.values[-1], reads[-1][2], rtol=0, atol=1e-6)
    with_text = query_attention(model, images, input_ids=batch.input_ids, attention_mask=batch.attention_mask)
    torch.testing.assert_close(with_text.flatten(2), actual.weights.mean(1)[:, :, 1:])
    assert (with_text - query_attention(model, images)).abs().max() > 1e-3


def test_what_cannot_be_shown_is_refused() -> None:
    model, batch = model_of("generative", "none"), image_text_batch(2)
    images = batch.pixel_values.double()
    with pytest.raises(IndexError, match=r"no cross-attention 2; the Q-Former has 2"):
        query_attention(model, images, layer=2)
    with pytest.raises(ValueError, match="reads no text"):
        query_attention(model, images, input_ids=batch.input_ids, attention_mask=batch.attention_mask)
