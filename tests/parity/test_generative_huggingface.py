"""Stage 2 and retrieval equal transformers' own BLIP-2, after conversion in either direction, in values and gradients.

Transformers' tower ends in a layer norm with the eps of all its others, 1e-6; ours, as in the original, has 1e-5. For
the comparison one is set to the other; what the difference amounts to is a test of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_models import DEMO, EVA, our_model, save_theirs, their_model
from PIL import Image
from tiny_generation import generation_batch
from torch import Tensor
from transformers import Blip2ForConditionalGeneration, Blip2ForImageTextRetrieval, Blip2Processor

from blip2_train.checkpoints.convert.key_map import HUGGING_FACE
from blip2_train.checkpoints.convert.timm_towers import load_tower
from blip2_train.checkpoints.foreign_exports.huggingface import write_huggingface
from blip2_train.checkpoints.frozen_parts import load_language_model
from blip2_train.checkpoints.pretrained import open_pretrained
from blip2_train.data.batches.processor import Processor
from blip2_train.models.configs import GenerationOptions
from blip2_train.models.generative import GenerativeModel
from blip2_train.objectives.generation import GenerationObjective
from blip2_train.types import GenerationBatch

TOLERANCE = {"opt": 1e-5, "t5": 3e-5}
LEARNED = ("qformer.", "query_tokens", "ln_vision.", "language_projection.")


def as_theirs(folder: Path, **options: Any) -> Any:
    """The exported model in transformers, with our eps after the tower."""
    model = Blip2ForConditionalGeneration.from_pretrained(folder, **options).eval()
    model.vision_model.post_layernorm.eps = 1e-5
    return model


def pair(direction: str, kind: str, tmp_path: Path, tower: str = "plain") -> tuple[GenerativeModel, Any]:
    """The same model here and there, converted one way or the other."""
    if direction == "from theirs":
        theirs = their_model(kind)
        ours = open_pretrained(save_theirs(theirs, kind, tmp_path / "theirs")).model
        ours.ln_vision.eps = 1e-6
    else:
        ours, processor, manifest = our_model(kind, EVA if tower == "eva" else None)
        theirs = as_theirs(write_huggingface(tmp_path / "ours", ours, processor, manifest))
    assert isinstance(ours, GenerativeModel)
    theirs.vision_model.embeddings.requires_grad_(False)
    theirs.vision_model.encoder.requires_grad_(False)
    theirs.language_model.requires_grad_(False)
    return ours, theirs


def read_by_theirs(theirs: Any, batch: GenerationBatch) -> dict[str, Tensor]:
    """The batch as transformers wants it: placeholders for the queries in front."""
    locations = torch.full((len(batch), theirs.config.num_query_tokens), theirs.config.image_token_index)
    return {
        "pixel_values": batch.pixel_values,
        "input_ids": torch.cat([locations, batch.input_ids], dim=1),
        "attention_mask": torch.cat([torch.ones_like(locations), batch.attention_mask.long()], dim=1),
    }


def labels_of_theirs(ours: GenerativeModel, theirs: Any, batch: GenerationBatch) -> Tensor:
    if ours.is_encoder_decoder:
        return batch.labels
    return torch.cat([torch.full((len(batch), theirs.config.num_query_tokens), -100), batch.labels], dim=1)


def logits(ours: GenerativeModel, batch: GenerationBatch) -> Tensor:
    """Logits at the positions with a label, `(K, V)`."""
    states = ours.predicting_states(batch.pixel_values, batch.input_ids, batch.attention_mask, batch.labels)
    weight, bias = ours.output_layer()
    actual = torch.nn.functional.linear(states, weight, bias)
    return actual.flatten(0, 1)[batch.target_positions]


def their_logits(ours: GenerativeModel, theirs: Any, batch: GenerationBatch, output: Any) -> Tensor:
    actual = output.logits
    if not ours.is_encoder_decoder:  # the logits of the position before
        actual = actual[:, -batch.labels.shape[1] - 1 : -1]
    return actual.flatten(0, 1)[batch.target_positions][:, : len(ours.output_layer()[0])]


def assert_close(actual: Tensor, expected: Tensor, tolerance: float, least: float = 1.0) -> None:
    """Equal up to a share of the largest value, or of `least`."""
    size = max(least, float(expected.detach().abs().max()))
    torch.testing.assert_close(actual, expected, rtol=0.0, atol=tolerance * size)


CASES = [
    ("from theirs", "opt", "plain"), ("from theirs", "t5", "plain"),
    ("to theirs", "opt", "plain"), ("to theirs", "t5", "eva"), ("to theirs", "opt", "eva"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(("direction", "kind", "tower"), CASES)
def test_loss_logits_and_gradients(direction: str, kind: str, tower: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """In float32 to the rounding of two orders of summation; in float64 far closer, relative to the values.

    Of OPT's ReLUs a few have inputs so close to 0 that in float32 one of both is on and the other off, which ones
    depends on the CPU: of some twenty thousand one is enough to change gradients by half a percent.
    """
    ours, theirs = pair(direction, kind, tmp_path, tower)
    ours.to(dtype)
    theirs.to(dtype)
    batch = generation_batch(ours, size=3, seed=2, length=7, words=600)
    batch.pixel_values = batch.pixel_values.to(dtype)
    tolerance, least = (TOLERANCE[kind], 1.0) if dtype == torch.float32 else (1e-9, 0.0)

    output = theirs(**read_by_theirs(theirs, batch), labels=labels_of_theirs(ours, theirs, batch))
    actual = GenerationObjective()(ours, batch)
    expected = their_logits(ours, theirs, batch, output)
    assert expected.std() > 0.03
    assert_close(logits(ours, batch), expected, tolerance, least)
    loss = torch.nn.functional.cross_entropy(expected, batch.labels.flatten()[batch.target_positions])
    assert_close(actual.total, loss, tolerance, least)
    if direction == "from theirs":
        assert_close(output.loss.to(dtype), loss, 1e-5)  # always computed in float32
    else:  # the row for the image token is one more in their normaliser
        assert 0 <= output.loss - loss < 1 / len(ours.output_layer()[0])

    actual.total.backward()
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    pairs = {
        name: (parameter.grad, gradients[str(HUGGING_FACE.to_theirs(name))])
        for name, parameter in ours.named_parameters()
        if not name.endswith(("q_bias", "v_bias"))
    }
    largest = max(float(there.abs().max()) for _, there in pairs.values() if there is not None)
    if dtype == torch.float32 and kind == "opt":
        tolerance = 2e-2
    for name, (here, there) in pairs.items():
        if not name.startswith(LEARNED):
            assert here is None and there is None, name
            continue
        assert there.any(), name
        assert_close(here, there, tolerance, max(least, 1e-3 * largest))


@pytest.mark.slow
@pytest.mark.parametrize(("direction", "kind", "tower"), CASES)
def test_generated_ids(direction: str, kind: str, tower: str, tmp_path: Path) -> None:
    ours, theirs = pair(direction, kind, tmp_path, tower)
    batch = generation_batch(ours, size=3, seed=2, length=7, words=600)
    batch.attention_mask[:] = True
    length = batch.input_ids.shape[1] + theirs.config.num_query_tokens
    tokens = {"eos_token_id": theirs.config.text_config.eos_token_id, "pad_token_id": 1}
    for beams in (1, 5):
        options = GenerationOptions(num_beams=beams, max_new_tokens=9)
        actual = ours.generate(batch.pixel_values, batch.input_ids, batch.attention_mask, options, **tokens)
        expected = theirs.generate(**read_by_theirs(theirs, batch), num_beams=beams, max_new_tokens=9, **tokens)
        expected = expected if ours.is_encoder_decoder else expected[:, length:]
        assert actual.tolist() == expected.tolist()
        assert len(set(actual.flatten().tolist())) > 4


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "dtype"), [("opt", "bfloat16"), ("opt", "float16"), ("t5", "bfloat16")])
def test_frozen_parts_in_16_bits(kind: str, dtype: str, tmp_path: Path) -> None:
    """Both differ from float32 by the rounding of the format, and from each other by no more."""
    whole, processor, manifest = our_model(kind)
    folder = write_huggingface(tmp_path / "whole", whole, processor, manifest)
    ours = open_pretrained(folder, dtype=dtype).model
    assert ours.language_model.dtype == ours.vision_model.tower.pos_embed.dtype == getattr(torch, dtype)
    again = open_pretrained(folder, dtype=dtype)
    half = write_huggingface(tmp_path / "half", again.model, again.processor, again.manifest)
    theirs = as_theirs(half)
    assert theirs.language_model.dtype == theirs.vision_model.dtype == getattr(torch, dtype)
    batch = generation_batch(ours, size=3, seed=2, length=7, words=600)
    with torch.no_grad():
        exact, actual = logits(whole, batch), logits(ours, batch)
        output = theirs(**read_by_theirs(theirs, batch), labels=labels_of_theirs(ours, theirs, batch))
        expected = their_logits(ours, theirs, batch, output)
    rounding = torch.finfo(getattr(torch, dtype)).eps * exact.abs().max()
    assert (actual - exact).abs().mean() <= rounding
    assert (actual - expected).abs().mean() <= 2 * rounding
    assert (actual - exact).abs().mean() <= 1.2 * (expected - exact).abs().mean()


def test_the_eps_after_the_tower_changes_the_last_digits_only(tmp_path: Path) -> None:
    ours, processor, manifest = our_model("opt")
    theirs = Blip2ForConditionalGeneration.from_pretrained(write_huggingface(tmp_path / "x", ours, processor, manifest))
    assert theirs.vision_model.post_layernorm.eps == 1e-6 and ours.ln_vision.eps == 1e-5
    batch = generation_batch(ours, size=3, seed=2, length=7, words=600)
    with torch.no_grad():
        expected = their_logits(ours, theirs, batch, theirs(**read_by_theirs(theirs, batch)))
        difference = (logits(ours, batch) - expected).abs().max()
    assert 0 < difference < 1e-3


def demo_model(kind: str, tmp_path: Path) -> tuple[GenerativeModel, Path, Processor]:
    """The demo's tower and language model, with a random Q-Former."""
    vision = {
        "weights": str(DEMO / "vision" / "model.safetensors"), "image_size": 96,
        "overrides": {"patch_size": 12, "embed_dim": 128, "depth": 4, "num_heads": 4},
    }  # fmt: skip
    model, processor, manifest = our_model(kind, vision)
    load_tower(model.vision_model, model.vision_config)
    load_language_model(model)
    return model, write_huggingface(tmp_path / "demo", model, processor, manifest), processor


def make_images(count: int, size: tuple[int, int]) -> list[Image.Image]:
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(count, 3, 6, 6, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=(size[1], size[0]), mode="nearest")
    return [Image.fromarray((255 * part).byte().permute(1, 2, 0).numpy()) for part in fine]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["opt", "t5"])
def test_captions_of_the_exported_demo(kind: str, tmp_path: Path) -> None:
    """As a stranger uses the folder: processor, generate, batch_decode."""
    model, folder, processor = demo_model(kind, tmp_path)
    theirs = Blip2ForConditionalGeneration.from_pretrained(folder)
    reader = Blip2Processor.from_pretrained(folder)
    tokenizer = processor.language_tokenizer
    tokens = {"eos_token_id": tokenizer.end_id, "pad_token_id": tokenizer.pad_id}
    images = make_images(5, (96, 96))
    for prompt in ("", "a photo of", "question: what is in the corner? answer:"):
        ids, mask = processor.prompts([prompt] * len(images))
        inputs = reader(images=images, text=[prompt] * len(images), return_tensors="pt")
        for beams in (1, 5):
            options = GenerationOptions(num_beams=beams, max_new_tokens=16)
            actual = tokenizer.decode(model.generate(processor.images(images), ids, mask, options, **tokens))
            written = theirs.generate(**inputs, num_beams=beams, max_new_tokens=16)
            texts = [text.strip() for text in reader.batch_decode(written, skip_special_tokens=True)]
            if kind == "opt":  # transformers returns the prompt too
                assert all(text.startswith(prompt) for text in texts)
                texts = [text[len(prompt) :].strip() for text in texts]
            assert actual == texts and any(actual)
            if not prompt:
                alone = theirs.generate(pixel_values=inputs["pixel_values"], num_beams=beams, max_new_tokens=16)
                assert actual == [text.strip() for text in reader.batch_decode(alone, skip_special_tokens=True)]


def test_images_are_processed_alike(tmp_path: Path) -> None:
    _, folder, processor = demo_model("opt", tmp_path)
    reader = Blip2Processor.from_pretrained(folder)
    same = make_images(2, (96, 96))
    torch.testing.assert_close(processor.images(same), reader(images=same, return_tensors="pt")["pixel_values"])
    larger = make_images(2, (150, 110))
    difference = (processor.images(larger) - reader(images=larger, return_tensors="pt")["pixel_values"]).abs()
    assert difference.max() < 2.5 / 255 / 0.26 and difference.mean() < 0.5 / 255 / 0.26  # rounding of one resizer


@pytest.mark.parametrize("direction", ["from theirs", "to theirs"])
def test_retrieval(direction: str, tmp_path: Path) -> None:
    """Similarities, which transformers does not divide by a temperature, and matching logits."""
    if direction == "from theirs":
        theirs = their_model("retrieval")
        actual = open_pretrained(save_theirs(theirs, "retrieval", tmp_path / "theirs"))
        ours, processor = actual.model, actual.processor
        ours.ln_vision.eps = 1e-6
        reader = Blip2Processor.from_pretrained(tmp_path / "theirs")
    else:
        ours, processor, manifest = our_model("retrieval", EVA)
        folder = write_huggingface(tmp_path / "ours", ours, processor, manifest)
        theirs = Blip2ForImageTextRetrieval.from_pretrained(folder)
        theirs.vision_model.post_layernorm.eps = 1e-5
        reader = Blip2Processor.from_pretrained(folder)
    texts = ["a red circle", "two stars above a house"]
    images = make_images(2, (32, 32))
    ids, mask = processor.texts(texts)
    inputs = reader(images=images, text=texts, padding=True, return_tensors="pt")
    pixels = inputs["pixel_values"]
    assert inputs["input_ids"][:, 4:].tolist() == ids.tolist()
    with torch.no_grad():
        encoded = ours.encode_image(pixels)
        similarity = torch.einsum("mqe,ne->mnq", encoded.image_features, ours.encode_text(ids, mask)).amax(dim=2)
        matched = ours.match([encoded.image_kv], ids, mask)
        expected = theirs(**inputs).logits_per_image
        head = theirs(**inputs, use_image_text_matching_head=True).logits_per_image
    torch.testing.assert_close(similarity, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(matched, head, rtol=1e-5, atol=1e-5)
    assert similarity.std() > 0.01 and matched.std() > 0.01
