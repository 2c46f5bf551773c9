import pytest
import torch
from tiny import image_text_batch, image_text_model, vision_config

from blip2_train.models.configs import QFormerConfig
from blip2_train.models.freezing import describe_parameters, trainable_names
from blip2_train.models.image_text import ImageTextModel
from blip2_train.objectives.representation import RepresentationObjective


@pytest.mark.parametrize(
    ("tower", "expected"),
    [
        ("eva_giant_patch14_clip_224.laion400m", 186_705_470),
        ("vit_large_patch14_clip_quickgelu_224.openai", 183_165_758),
    ],
)
def test_the_papers_models_have_the_released_number_of_trainable_parameters(tower: str, expected: int) -> None:
    with torch.device("meta"):
        model = ImageTextModel(vision_config(name=tower, image_size=224, overrides={}), QFormerConfig(weights="random"))
    assert sum(part.trainable for part in describe_parameters(model)) == expected


def test_every_trainable_parameter_gets_a_gradient_and_no_frozen_one() -> None:
    model = image_text_model().train()
    RepresentationObjective()(model, image_text_batch(), torch.Generator()).total.backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == trainable_names(model)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_shapes_and_unit_length() -> None:
    model, batch = image_text_model().eval(), image_text_batch()
    images = model.encode_image(batch.pixel_values)
    text = model.encode_text(batch.input_ids, batch.attention_mask)
    assert images.patch_features.shape == (5, 17, 24)
    assert images.query_states.shape == (5, 4, 16)
    assert images.image_features.shape == (5, 4, 8) and text.shape == (5, 8)
    torch.testing.assert_close(images.image_features.norm(dim=-1), torch.ones(5, 4))
    assert len(images.image_kv.keys) == 2 and len(images.query_cache) == 3
    assert model.match([images.image_kv], batch.input_ids, batch.attention_mask).shape == (5, 2)
    assert model.caption_logits(images, batch.input_ids, batch.attention_mask).shape == (batch.attention_mask.sum(), 60)


def test_padding_changes_nothing() -> None:
    model, batch = image_text_model().eval(), image_text_batch()
    images, longest = model.encode_image(batch.pixel_values), batch.longest_text
    ids, mask = batch.input_ids, batch.attention_mask
    garbage = torch.where(mask, ids, 7)
    for a, b in (
        (model.encode_text(ids, mask), model.encode_text(garbage[:, :longest], mask[:, :longest])),
        (
            model.match([images.image_kv], ids, mask),
            model.match([images.image_kv], garbage[:, :longest], mask[:, :longest]),
        ),
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_query_feed_forward_starts_as_the_texts() -> None:
    for layer in ImageTextModel(vision_config(), QFormerConfig(weights="random", num_layers=2)).qformer.encoder.layer:
        assert torch.equal(layer.intermediate.dense.weight, layer.intermediate_query.dense.weight)
        assert torch.equal(layer.output.LayerNorm.bias, layer.output_query.LayerNorm.bias)


def test_16_bit_features_give_float32_results() -> None:
    model = image_text_model(vision={"dtype": "float16"}).eval()
    images = model.encode_image(image_text_batch().pixel_values)
    assert images.patch_features.dtype == torch.float16
    assert images.image_features.dtype == torch.float32
