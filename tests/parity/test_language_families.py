"""Ten families of published language models through everything: collated, trained, written, exported, read again.

`pytest tests/parity/test_language_families.py -s` prints one line a family.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from demo_exports import TOWER, export
from PIL import Image
from published_tokenizers import FAMILIES, write_language_model
from safetensors.torch import load_file
from tiny import qformer_config
from torch import Tensor
from transformers import Blip2ForConditionalGeneration, Blip2Processor

from blip2_train.checkpoints.architecture import describe_model
from blip2_train.checkpoints.convert.huggingface import SIDE
from blip2_train.checkpoints.export import write_export
from blip2_train.checkpoints.foreign_exports.huggingface import write_huggingface
from blip2_train.checkpoints.initial_weights import load_initial_weights
from blip2_train.checkpoints.pretrained import open_pretrained
from blip2_train.cli.predict.command import main as predict
from blip2_train.cli.terminal import run_command
from blip2_train.config.compose import asset
from blip2_train.data.batches.generation_collate import (
    DecoderOnlyCollator,
    EncoderDecoderCollator,
    load_decoder_only_collator,
    load_encoder_decoder_collator,
)
from blip2_train.data.batches.language_tokenizer import LanguageTokenizer
from blip2_train.data.batches.processor import Processor
from blip2_train.errors import CheckpointMismatch
from blip2_train.evaluation.inference import Blip2
from blip2_train.models.configs import GenerationOptions, LanguageModelConfig, VisionConfig
from blip2_train.models.generative import GenerativeModel
from blip2_train.models.ranking import log_likelihoods
from blip2_train.objectives.generation import GenerationObjective
from blip2_train.types import GenerationBatch, ImageTextSample

RELEASED = "opt, released"
"""OPT with the tokens of the released BLIP-2: texts end with a line end."""
TOKENS: dict[str, dict[str, Any]] = {RELEASED: {"start_token": "</s>", "end_token": "\n"}}
STEPS = ("collate", "train", "generate", "export", "predict", "to Hugging Face", "and back")
PROMPT = "a photo of"
SHORT: dict[str, Any] = {"num_beams": 2, "max_new_tokens": 8}
CAPTIONS = ["a cat", "two birds in a red tree", "a dog on a mat"]


@dataclass
class Trained:
    """A model of a family after two steps, and what it says to the images."""

    family: str
    model: GenerativeModel
    processor: Processor
    export: Path
    captions: list[str]

    @property
    def tokens(self) -> list[Any]:
        return tokens_of(self.processor)


def tokens_of(processor: Processor) -> list[Any]:
    tokenizer = processor.language_tokenizer
    assert tokenizer is not None
    return [tokenizer.start_ids, tokenizer.end_id, set(tokenizer.end_ids), tokenizer.pad_id]


def collator_of(family: str, folder: Path, tokens: dict[str, Any]) -> DecoderOnlyCollator | EncoderDecoderCollator:
    about: dict[str, Any] = {"name": str(folder), "max_text_length": 40, "prompt": PROMPT, **tokens}
    if FAMILIES[family].encoder_decoder:
        return load_encoder_decoder_collator(**about, split_prefix=False)
    return load_decoder_only_collator(**about)


def images() -> list[Image.Image]:
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 256, (40, 50, 3), dtype=np.uint8)) for _ in range(len(CAPTIONS))]


def batch_of(collator: DecoderOnlyCollator | EncoderDecoderCollator, processor: Processor) -> GenerationBatch:
    pixels = processor.images(images())
    return collator(
        [
            ImageTextSample(
                pixel_values=image, caption=text, image_id=n, sample_id=str(n), references=(text,), uniform=0.5
            )
            for n, (image, text) in enumerate(zip(pixels, CAPTIONS, strict=True))
        ]
    )


def train(model: GenerativeModel, batch: GenerationBatch, steps: int = 2) -> list[float]:
    """The loss before each step and after the last."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer, losses = torch.optim.AdamW(trained, lr=3e-3), []
    for step in range(steps + 1):
        total = GenerationObjective()(model.train(), batch).total
        losses.append(total.item())
        if step < steps:
            optimizer.zero_grad()
            total.backward()
            assert all(parameter.grad is not None for parameter in trained)
            optimizer.step()
    model.eval()
    return losses


@torch.no_grad()
def loss_by_transformers(model: GenerativeModel, batch: GenerationBatch) -> float:
    """The language model's own loss of the same embeddings and labels."""
    embeddings, mask = model.language_inputs(
        model.soft_prompt(batch.pixel_values), batch.input_ids, batch.attention_mask
    )
    labels = batch.labels
    if not model.is_encoder_decoder:
        labels = torch.cat([labels.new_full((len(labels), mask.shape[1] - labels.shape[1]), -100), labels], dim=1)
    output = model.eval().language_model(inputs_embeds=embeddings, attention_mask=mask, labels=labels)
    return float(output.loss)


@pytest.fixture(scope="module")
def table() -> Iterator[dict[str, list[str]]]:
    """What went well, by family; printed at the end."""
    actual: dict[str, list[str]] = {}
    yield actual
    print(f"\n{'family':<14}" + "".join(f"{step:>17}" for step in STEPS))
    for family, steps in actual.items():
        print(f"{family:<14}" + "".join(f"{step:>17}" for step in steps))


def assert_same_weights(before: GenerativeModel, after: Any, rows: bool = True) -> None:
    """Bitwise; without `rows`, an image token may have been added to the vocabulary."""
    target, actual = before.state_dict(), after.state_dict()
    assert target.keys() == actual.keys()
    for name, tensor in target.items():
        other = actual[name] if rows or not name.startswith("language_model.") else actual[name][: len(tensor)]
        assert torch.equal(tensor, other), name


@pytest.mark.slow
@pytest.mark.parametrize("family", [*FAMILIES, RELEASED])
def test_a_family_through_everything(
    family: str, tmp_path: Path, table: dict[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    done = table[family] = []
    trained = collated_and_trained(family, tmp_path, done)
    exported_and_read(trained, done)
    predicted(trained, tmp_path, done, capsys)
    converted_and_back(trained, tmp_path, done)
    assert len(done) == len(STEPS)


def collated_and_trained(family: str, tmp_path: Path, done: list[str]) -> Trained:
    tokens, family = TOKENS.get(family, {}), family.split(",")[0]
    folder = write_language_model(family, tmp_path / "language_model")
    vision = VisionConfig(
        name="vit_tiny_patch16_224", weights=asset("demo/vision/model.safetensors"), image_size=96, overrides=TOWER
    )
    model = GenerativeModel(vision, qformer_config(), LanguageModelConfig(name=str(folder), **tokens))
    load_initial_weights(model, None)
    collator = collator_of(family, folder, tokens)
    tokenizer = collator.tokenizer.padding_on("left")
    about: dict[str, Any] = {"image_size": 96, "max_text_length": 40, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    processor = Processor(**about, prompt=PROMPT, language_tokenizer=tokenizer)
    batch = batch_of(collator, processor)
    assert_labels_end(tokenizer, batch)
    done.append("yes")

    frozen = {name: tensor.clone() for name, tensor in model.language_model.state_dict().items()}
    by_transformers = loss_by_transformers(model, batch)
    losses = train(model, batch)
    assert losses[0] == pytest.approx(by_transformers, rel=1e-5)
    assert losses[2] < losses[1] < losses[0]
    assert all(torch.equal(tensor, frozen[name]) for name, tensor in model.language_model.state_dict().items())
    done.append(f"{losses[0]:.2f} > {losses[2]:.2f}")

    captions = Blip2(model, processor).caption(images(), **SHORT)
    assert all(captions), captions
    done.append("yes")
    location = export(tmp_path / "export", model, "stage2", processor, tokenizer)
    return Trained(family, model, processor, Path(location), captions)


def assert_labels_end(tokenizer: LanguageTokenizer, batch: GenerationBatch) -> None:
    """Every text ends with the one end that is taught, also where the end pads; nothing behind it has a label."""
    for row, text in enumerate(CAPTIONS):
        labels = batch.labels[row]
        learnt = labels[labels != -100].tolist()
        assert learnt[-1] == tokenizer.end_id and learnt.count(tokenizer.end_id) == 1
        assert tokenizer.tokenizer.decode(learnt, skip_special_tokens=True).strip() == text
        if not tokenizer.encoder_decoder:
            read = batch.input_ids[row][batch.attention_mask[row]].tolist()
            assert read == [*tokenizer.prompt_ids(PROMPT), *learnt]


def exported_and_read(trained: Trained, done: list[str]) -> None:
    again = open_pretrained(trained.export)
    assert tokens_of(again.processor) == trained.tokens
    assert_same_weights(trained.model, again.model)
    assert Blip2(again.model, again.processor).caption(images(), **SHORT) == trained.captions
    done.append("equal")


def predicted(trained: Trained, tmp_path: Path, done: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, image in enumerate(images()):
        image.save(folder / f"{number}.png")
    beams = ["--num-beams", "2", "--max-new-tokens", "8"]
    capsys.readouterr()
    assert run_command(predict, ["caption", "--model", str(trained.export), *beams, str(folder)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["caption"] for line in lines] == trained.captions
    done.append("equal")


def converted_and_back(trained: Trained, tmp_path: Path, done: list[str]) -> None:
    actual = open_pretrained(trained.export)
    location = tmp_path / "huggingface"
    if trained.family == "bart":
        with pytest.raises(CheckpointMismatch, match=r"takes a language model of the type 'bart' for decoder-only"):
            write_huggingface(location, actual.model, actual.processor, actual.manifest)
        assert not location.exists()
        done += ["refused", "-"]
        return
    write_huggingface(location, actual.model, actual.processor, actual.manifest)
    assert generated_by_transformers(location, trained) == trained.captions
    done.append("equal")
    for beside in (True, False):  # with what we left beside the weights, and as anybody's folder
        if not beside:
            shutil.rmtree(location / SIDE)
        again = open_pretrained(location)
        assert tokens_of(again.processor) == trained.tokens
        assert_same_weights(trained.model, again.model, rows=beside)
        again.model.ln_vision.eps = 1e-5
        assert Blip2(again.model, again.processor).caption(images(), prompt=PROMPT, **SHORT) == trained.captions
    done.append("equal")


def generated_by_transformers(location: Path, trained: Trained) -> list[str]:
    """Captions by transformers alone; with our eps after the tower."""
    theirs = Blip2ForConditionalGeneration.from_pretrained(location).eval()
    theirs.vision_model.post_layernorm.eps = 1e-5
    reader = Blip2Processor.from_pretrained(location)
    inputs = reader(images=images(), text=[PROMPT] * len(CAPTIONS), return_tensors="pt")
    pixels: Tensor = trained.processor.images(images())
    written = theirs.generate(**{**inputs, "pixel_values": pixels}, **SHORT)
    if not trained.model.is_encoder_decoder:  # transformers returns the prompt too
        written = written[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in reader.batch_decode(written, skip_special_tokens=True)]


def test_generation_stops_at_every_end_that_the_model_lists(tmp_path: Path) -> None:
    """Each of what a free run writes is made an end of the model's in turn."""
    trained = collated_and_trained("llama_3", tmp_path, [])
    tokenizer = trained.processor.language_tokenizer
    assert tokenizer is not None
    ids, mask = trained.processor.prompts([PROMPT])
    pixels, greedy = trained.processor.images(images()[:1]), GenerationOptions(num_beams=1, max_new_tokens=8)

    def written(**tokens: Any) -> list[int]:
        return trained.model.generate(pixels, ids, mask, greedy, **tokens)[0].tolist()

    free = written(eos_token_id=[], pad_token_id=0)
    later = set(free) - {free[0]}  # at least one token is written
    assert len(later) > 2 and not set(free) & set(tokenizer.end_ids)
    file = tmp_path / "language_model/generation_config.json"
    listed = json.loads(file.read_text())["eos_token_id"]
    for end in later:
        file.write_text(json.dumps({"eos_token_id": [*listed, end]}))
        ended = LanguageTokenizer(tokenizer.name, padding_side="left", encoder_decoder=False)
        assert ended.end_id == tokenizer.end_id and ended.end_ids == [*tokenizer.end_ids, end]
        actual = written(**ended.generation_tokens)
        assert actual == free[: free.index(end) + 1]
        before = tokenizer.tokenizer.decode(free[: free.index(end)], skip_special_tokens=True)
        assert ended.decode(torch.tensor([[*actual, ended.pad_id]])) == [before.strip()]


def test_the_decoder_of_bart_starts_as_its_tokenizer_does(tmp_path: Path) -> None:
    """`</s>`, which is its end too, then `<s>`: in training, in generation, and where candidates are compared."""
    trained = collated_and_trained("bart", tmp_path, [])
    model, tokenizer = trained.model, trained.processor.language_tokenizer
    assert tokenizer is not None
    ids, mask = trained.processor.prompts([PROMPT] * 3)
    assert ids[0].tolist() == [0, *tokenizer.text_ids(PROMPT), 2]
    pixels, options = trained.processor.images(images()), GenerationOptions(num_beams=1, max_new_tokens=4)
    written = model.generate(pixels, ids, mask, options, **tokenizer.generation_tokens)
    assert written[:, :2].tolist() == [[2, 0]] * 3 and written.shape[1] <= 2 + 4
    candidates = ["a cat", "two birds in a red tree", "a mat"]
    actual = log_likelihoods(
        model, pixels, ids, mask, tokenizer.continuations(PROMPT, candidates), 3,
        decoder_start=tokenizer.generation_tokens["decoder_start"],
    )  # fmt: skip
    weight, bias = model.output_layer()
    for location, text in enumerate(candidates):
        labels = torch.tensor([tokenizer.finished_ids(text, 30)] * 3)
        with torch.no_grad():
            logits = torch.nn.functional.linear(model.predicting_states(pixels, ids, mask, labels), weight, bias)
        expected = logits.log_softmax(dim=2).gather(2, labels[:, :, None])[:, 1:, 0].sum(dim=1)
        torch.testing.assert_close(actual[:, location], expected, rtol=1e-4, atol=1e-4)
    assert tokenizer.decode(written) == Blip2(model, trained.processor).caption(images(), num_beams=1, max_new_tokens=4)


@pytest.mark.slow
def test_flan_t5_keeps_its_own_head(tmp_path: Path) -> None:
    """transformers 5.24 ties the two matrices of a T5 that it builds, whatever its configuration says."""
    trained = collated_and_trained("t5", tmp_path, [])
    file = load_file(tmp_path / "language_model/model.safetensors")
    head, words = file["lm_head.weight"], file["shared.weight"]
    assert json.loads((tmp_path / "language_model/config.json").read_text())["tie_word_embeddings"] is False
    assert head.shape == words.shape and not torch.equal(head, words)

    def assert_kept(language_model: Any) -> None:
        assert torch.equal(language_model.get_output_embeddings().weight[: len(head)], head)
        assert torch.equal(language_model.get_input_embeddings().weight[: len(words)], words)
        assert not language_model.config.scale_decoder_outputs  # which goes with tied ones

    assert_kept(trained.model.language_model)
    actual = open_pretrained(trained.export)
    assert_kept(actual.model.language_model)
    location = write_huggingface(tmp_path / "huggingface", actual.model, actual.processor, actual.manifest)
    assert_kept(Blip2ForConditionalGeneration.from_pretrained(location).language_model)
    for beside in (True, False):
        if not beside:
            shutil.rmtree(location / SIDE)
        back = open_pretrained(location)
        assert_kept(back.model.language_model)
    about: Any = {"architecture": describe_model(back.model), "processor": back.processor.describe()}
    manifest = replace(back.manifest, **about)
    write_export(tmp_path / "whole", back.model.state_dict(), "", back.processor.language_tokenizer, manifest)
    assert_kept(open_pretrained(tmp_path / "whole").model.language_model)
