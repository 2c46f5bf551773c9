"""Every recipe with OPT or FlanT5 starts and trains with a tokenizer in the arrangement of the published one.

The recipe's own names, tokens and prompts stay; only sizes shrink. `facebook/opt-2.7b` and the others are folders here.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from published_tokenizers import write_language_model
from transformers import AutoTokenizer

from blip2_train.checkpoints.initial_weights import load_initial_weights
from blip2_train.cli.terminal import run_command
from blip2_train.cli.train.command import main
from blip2_train.config.compose import asset, compose, instantiate, recipes
from blip2_train.data.batches.qformer_tokenizer import load_qformer_tokenizer
from blip2_train.types import QuestionSample

PUBLISHED = {
    "facebook/opt-2.7b": "opt", "facebook/opt-6.7b": "opt", "google/flan-t5-xl": "t5", "google/flan-t5-xxl": "t5",
}  # fmt: skip
RECIPES = [
    name for name in recipes() if name.startswith(("stage2_", "caption_", "vqa_")) and not name.startswith("demo_")
]
SIZES = {
    "opt": {"hidden_size": 32, "word_embed_proj_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "ffn_dim": 48, "max_position_embeddings": 128},
    "t5": {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 2},
}  # fmt: skip
TINY = (
    "init_from=null",
    "image_size=32",
    f"tokenizer={asset('demo/bert')}",
    "model.vision.weights=random",
    "model.vision.dtype=float32",
    "model.vision.overrides={patch_size: 8, embed_dim: 24, depth: 2, num_heads: 2, mlp_ratio: 2.0}",
    "model.qformer.weights=random",
    "model.qformer.hidden_size=16",
    "model.qformer.num_layers=2",
    "model.qformer.num_heads=2",
    "model.qformer.intermediate_size=32",
    "model.qformer.num_queries=4",
    f"model.qformer.vocab_size={len(load_qformer_tokenizer(asset('demo/bert')))}",
)
TEXTS = ["a cat", "two birds in a red tree", "a dog on a mat", "a photo"]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the recipes' hub ids are folders."""
    folder = tmp_path_factory.mktemp("hub")
    for name, family in PUBLISHED.items():
        write_language_model(family, folder / name)
    return folder


def family_of(recipe: str) -> str:
    return "t5" if "t5" in recipe else "opt"


def shrunk(recipe: str, rows: int, *more: str) -> list[str]:
    sizes = {**SIZES[family_of(recipe)], "vocab_size": rows}
    smaller = [f"model.language.architecture.{key}={value}" for key, value in sizes.items()]
    return [f"experiment={recipe}", *TINY, *smaller, *more]


def rows_in(folder: Path) -> int:
    return int(json.loads((folder / "config.json").read_text())["vocab_size"])


def samples(pixels: torch.Tensor) -> list[QuestionSample]:
    return [
        QuestionSample(
            pixel_values=image, caption=text, image_id=n, sample_id=str(n), references=(text,), uniform=0.5,
            question="what is it", question_id=n, question_type="what",
        )
        for n, (image, text) in enumerate(zip(pixels, TEXTS, strict=True))
    ]  # fmt: skip


def test_all_recipes_with_a_published_language_model_are_meant() -> None:
    names = [recipe for recipe in RECIPES if family_of(recipe) == "opt"]
    assert len(names) == 7 and len(RECIPES) == 12


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_trains_two_steps(recipe: str, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(hub)
    name = str(compose([f"experiment={recipe}", "init_from=null"]).model.language.name)
    config = compose(shrunk(recipe, rows_in(hub / name)))
    assert config.model.language.name == config.collator.name == name
    model, collator = instantiate(config.model), instantiate(config.collator)
    assert load_initial_weights(model, None)[-1].what.startswith(f"language model {name}")
    module = instantiate(
        config.module,
        model=model,
        objective=instantiate(config.objective),
        optimizer=instantiate(config.optim),
        collator=collator,
    )
    tokenizer, own = collator.tokenizer, AutoTokenizer.from_pretrained(hub / name)
    if family_of(recipe) == "opt":  # as the released code: </s> in front, the line end behind
        line_end = own("\n", add_special_tokens=False).input_ids
        assert tokenizer.start_ids == [2] and tokenizer.end_ids == line_end and tokenizer.pad_id == 1
    else:
        assert tokenizer.start_ids == [] and tokenizer.end_ids == [1] and tokenizer.pad_id == 0
        head, words = model.output_layer()[0], model.language_model.get_input_embeddings().weight
        assert not torch.equal(head, words)
    batch = collator(samples(torch.randn(len(TEXTS), 3, 32, 32)))
    ends = [row[row != -100][-1] for row in batch.labels]
    assert all(end == tokenizer.end_id for end in ends)

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer, losses = torch.optim.AdamW(trained, lr=3e-3), []
    for _ in range(2):
        loss = module.objective(model.train(), batch).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]
    model.eval()
    questions = batch.question_tokens if hasattr(batch, "question_tokens") else None
    generated = module.generate_texts(
        batch.pixel_values, [module.prompt.replace("{}", "what is it")] * len(TEXTS), questions
    )
    assert len(generated) == len(TEXTS)


def write_captions(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    rows: list[Sequence[Any]] = [("image", "caption")]
    for number in range(12):
        Image.new("RGB", (40, 30), (20 * number, 90, 200)).save(folder / f"{number}.png")
        rows.append((f"{number}.png", TEXTS[number % len(TEXTS)]))
    with (folder / "mine.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "mine.csv"


RUN = (
    "data=captions", "data.num_workers=0", "data.holdout=2", "trainer=cpu", "steps=2", "global_batch_size=4",
    "validate_every=2", "optim.warmup_steps=1", "log_every=1", "monitor=null", "module.generation.max_new_tokens=8",
)  # fmt: skip


def train(arguments: list[str], folder: Path) -> Path:
    """A run on own captions; returns its export."""
    own = [f"data.source={write_captions(folder / 'mine')}", f"paths.run_dir={folder / 'run'}"]
    assert run_command(main, [*arguments, *RUN, *own]) == 0
    results = json.loads((folder / "run/results.json").read_text())
    assert results["steps"] == 2 and results["val/loss_lm"] > 0
    return folder / "run/export"


@pytest.mark.parametrize("recipe", ["stage2_vit_g_opt_2.7b", "caption_coco_flan_t5_xl"])
def test_a_run_by_the_command(recipe: str, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its own names and tokens."""
    monkeypatch.chdir(hub)
    name = "facebook/opt-2.7b" if "opt" in recipe else "google/flan-t5-xl"
    export = train(shrunk(recipe, rows_in(hub / name)), tmp_path)
    ends = json.loads((export / "tokenizer/generation_config.json").read_text())["eos_token_id"]
    tokenizer = AutoTokenizer.from_pretrained(hub / name)
    assert ends == (tokenizer("\n", add_special_tokens=False).input_ids if "opt" in recipe else [1])


BY_HAND = ["model.language.start_token='</s>'", r"model.language.end_token='\n'"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "tokens", "start", "ends"),
    [
        ("opt", BY_HAND, "</s>", ["Ċ"]),
        ("opt", [], "</s>", ["</s>"]),
        ("llama_3", [], "<|begin_of_text|>", ["<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"]),
        ("gpt2", [], None, ["<|endoftext|>"]),
        ("t5", [], None, ["</s>"]),
        ("bart", [], "<s>", ["</s>"]),
    ],
)
def test_another_language_model_by_its_folder_alone(
    family: str, tokens: list[str], start: str | None, ends: list[str], tmp_path: Path
) -> None:
    """On a recipe of OPT: with the model's own tokens, or with those that are set by hand."""
    folder = write_language_model(family, tmp_path / "lm")
    recipe = "experiment=caption_coco_opt_2.7b"
    export = train([recipe, *TINY, f"model.language.name={folder}", *tokens], tmp_path)
    stated = json.loads((export / "tokenizer/generation_config.json").read_text())
    named = AutoTokenizer.from_pretrained(folder).convert_ids_to_tokens
    assert named(stated["eos_token_id"]) == ends
    assert (named(stated["bos_token_id"]) if start else stated.get("bos_token_id")) == start


def test_a_start_that_is_another_models_end_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_language_model("llama_2", tmp_path / "lm")
    other = [f"model.language.name={folder}", "data=captions", f"data.source={write_captions(tmp_path / 'mine')}"]
    assert run_command(main, ["experiment=stage2_vit_g_opt_2.7b", *TINY, *other, *BY_HAND]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "'</s>' is the end token of" in error and "\n" not in error
