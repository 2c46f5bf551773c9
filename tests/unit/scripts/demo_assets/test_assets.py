"""The packaged assets: complete, small, licensed, and loadable by the libraries that real models are loaded by."""

from __future__ import annotations

import json
import re
from itertools import islice

import numpy as np
import pytest
import timm
import torch
from demo_assets.command import ASSETS
from demo_assets.concept_list import PLURALS, SYNONYMS
from demo_assets.exercises import exercises
from demo_assets.language_models import ANSWERED_LENGTH, causal_batches, hide_spans, split_example
from demo_assets.sheets import parse_images
from demo_assets.texts import vocabulary
from demo_assets.tower import ARCHITECTURE, PATCH_SIZE, TIMM_NAME
from demo_assets.tower_data import (
    IMAGE_MEAN,
    IMAGE_STD,
    NO_LABEL,
    PatchBatches,
    label_map,
    patch_labels,
)
from safetensors.torch import load_file
from torchvision.transforms.functional import to_tensor
from transformers import AutoTokenizer, BertForMaskedLM, BertTokenizer, OPTForCausalLM, T5ForConditionalGeneration

from blip2_train.data.emoji_scenes.concepts import SHEET_COLUMNS, SPRITE_SIZE, STYLES, load_concepts, load_sheet
from blip2_train.data.emoji_scenes.render import render
from blip2_train.data.emoji_scenes.scenes import GROUNDS, SCENE_SIZE, Item, Scene

NEWLINE = AutoTokenizer.from_pretrained(ASSETS / "opt")("\n", add_special_tokens=False).input_ids[-1]
MANIFEST = json.loads((ASSETS / "manifest.json").read_text())


def test_assets_are_below_twenty_megabytes() -> None:
    assert sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) < 20e6


def test_licences_name_their_sources() -> None:
    attribution = (ASSETS / "licenses" / "ATTRIBUTION.txt").read_text()
    for words in (
        "Noto Emoji",
        "Apache License, Version 2.0",
        "Twemoji",
        "creativecommons.org/licenses/by/4.0",
        "Changes",
    ):
        assert words in attribution
    assert "TERMS AND CONDITIONS" in (ASSETS / "licenses" / "LICENSE-Apache-2.0.txt").read_text()
    assert "Cal Henderson" in (ASSETS / "licenses" / "LICENSE-emoji-data.txt").read_text()
    assert "Miles Johnson" in (ASSETS / "licenses" / "LICENSE-emojibase.txt").read_text()


def test_names_file_equals_the_list() -> None:
    records = json.loads((ASSETS / "sprites" / "names.json").read_text())["concepts"]
    assert records == parse_images()
    names = [record["name"] for record in records]
    assert set(PLURALS) | set(SYNONYMS) <= set(names)
    assert len(set(names)) == len(names) == len({record["code"] for record in records})
    assert 200 <= len(names) <= 224
    assert all(len(name.split()) <= 2 and name.isascii() for name in names)
    assert not set(names) & set(GROUNDS)


@pytest.mark.parametrize("style", STYLES)
def test_sheets_show_a_image_for_each_name(style: str) -> None:
    sheet = load_sheet(style)
    for concept in load_concepts():
        row, column = divmod(concept.index, SHEET_COLUMNS)
        cell = sheet[row * SPRITE_SIZE : (row + 1) * SPRITE_SIZE, column * SPRITE_SIZE : (column + 1) * SPRITE_SIZE, 3]
        assert (cell > 127).mean() > 0.1, concept.name


@pytest.mark.slow
def test_tower_knows_the_same_thing_in_both_styles() -> None:
    model = timm.create_model(TIMM_NAME, img_size=SCENE_SIZE, pretrained=False, **ARCHITECTURE)
    state = load_file(ASSETS / "vision" / "model.safetensors")
    assert {tensor.dtype for tensor in state.values()} == {torch.float16}
    model.load_state_dict(state)
    features = []
    for style in range(len(STYLES)):
        scenes = [
            Scene((Item(c.index, 24, 24, 48),), style=style, ground="gray", ground_jitter=(0, 0, 0), shade=(0, 0))
            for c in load_concepts()
        ]
        pixels = torch.stack([to_tensor(render(scene)) for scene in scenes])
        pixels = (pixels - torch.tensor(IMAGE_MEAN).view(3, 1, 1)) / torch.tensor(IMAGE_STD).view(3, 1, 1)
        with torch.no_grad():
            (states,) = model.eval().forward_intermediates(
                pixels, indices=[2], output_fmt="NLC", intermediates_only=True
            )
        middle = states.unflatten(1, (8, 8))[:, 3:5, 3:5].mean(dim=(1, 2))
        features.append(torch.nn.functional.normalize(middle - middle.mean(dim=0), dim=-1))
    nearest = (features[0] @ features[1].T).argmax(dim=1)
    assert (nearest == torch.arange(len(nearest))).float().mean() > 0.5
    assert MANIFEST["vision"]["foreground_accuracy"] >= 0.85


def test_bert_tokenizer_and_weights_load() -> None:
    tokenizer = BertTokenizer.from_pretrained(ASSETS / "bert")
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id) == (
        0,
        1,
        2,
        3,
    )
    text = "Two palm trees to the left of a fox, xyz"
    tokens = ["two", "palm", "trees", "to", "the", "left", "of", "a", "fox", ",", "x", "##y", "##z"]
    assert tokenizer.tokenize(text) == tokens
    model, report = BertForMaskedLM.from_pretrained(ASSETS / "bert", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert "cls.predictions.transform.dense.weight" in load_file(ASSETS / "bert" / "model.safetensors")
    assert model.dtype == torch.float32
    assert model.config.vocab_size == len(tokenizer)
    batch = tokenizer("a cat to the left [MASK] a dog on red", return_tensors="pt")
    scores = model.eval()(**batch).logits[0, batch["input_ids"][0] == tokenizer.mask_token_id]
    assert tokenizer.decode(scores.argmax(-1)) == "of"


def test_every_word_of_the_world_is_one_token() -> None:
    tokenizer = BertTokenizer.from_pretrained(ASSETS / "bert")
    words = vocabulary(9, scenes=300)
    assert all(len(tokenizer.tokenize(word)) == 1 for word in words)


@pytest.mark.parametrize("name", ["opt", "opt_instruct"])
def test_opt_behaves_like_opt(name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(ASSETS / name)
    ids = tokenizer("a photo of two foxes\n").input_ids
    newline = tokenizer("\n", add_special_tokens=False).input_ids
    assert ids[0] == tokenizer.bos_token_id == tokenizer.eos_token_id == 2
    assert tokenizer.pad_token_id == 1
    assert newline == [ids[-1]]
    model = OPTForCausalLM.from_pretrained(ASSETS / name).eval()
    start = tokenizer("a photo of", return_tensors="pt").input_ids
    generated = model.generate(start, max_new_tokens=20, do_sample=False, eos_token_id=newline[0], pad_token_id=1)
    assert generated[0, -1] == newline[0], tokenizer.decode(generated[0])
    assert 1e6 < sum(p.numel() for p in model.parameters()) < 2e6
    assert MANIFEST[name]["perplexity"] < 8


def test_instructed_opt_answers_from_text() -> None:
    tokenizer = AutoTokenizer.from_pretrained(ASSETS / "opt_instruct")
    model = OPTForCausalLM.from_pretrained(ASSETS / "opt_instruct").eval()
    caption = "a fox and three guitars on a blue ground</s>"
    assert MANIFEST["opt_instruct"]["answer_accuracy"] > 0.9
    expected = {"is there a fox": "yes", "is there a dog": "no", "is there a guitar": "yes"}
    expected |= {"is the ground blue": "yes", "is the ground red": "no", "what color is the ground": "blue"}
    for question, answer in expected.items():
        ids = tokenizer(f"{caption}Question: {question}? Short answer:", return_tensors="pt").input_ids
        generated = model.generate(ids, max_new_tokens=4, do_sample=False, eos_token_id=NEWLINE)
        assert tokenizer.decode(generated[0, ids.shape[1] :], skip_special_tokens=True).strip() == answer, question


@pytest.mark.slow
def test_instructed_opt_learns_answers_from_texts_with_questions() -> None:
    tokenizer = AutoTokenizer.from_pretrained(ASSETS / "opt_instruct")
    answered = whole = 0
    for batch in islice(causal_batches(tokenizer, exercises(3, "</s>"), 3, answers_only=True), 16):
        for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
            text, learned = tokenizer.decode(ids), tokenizer.decode(labels[labels >= 0])
            if "?" in text:
                lines = text.replace("<pad>", "").splitlines()
                cut_off = len(ids) == ANSWERED_LENGTH and not text.endswith("\n")
                lines = lines[: len(lines) - cut_off]
                answers = [" " + re.split(r"\? (?:(?:Short a|A)nswer: )?", line)[1] for line in lines]
                assert learned.splitlines()[: len(lines)] == answers
                answered += len(lines)
            else:
                assert "</s>" + learned == text.replace("<pad>", "")
                whole += 1
    assert answered > 1000 and whole > 100


def test_drills_have_right_answers() -> None:
    answers = []
    for text in islice((text for text in exercises(5, "</s>") if re.search(r"^a [a-z ]+\? ", text, re.M)), 200):
        caption, drill = text[: (start := text.rindex("a ", 0, text.index("?")))], text[start:]
        for word, answer in re.findall(r"a ([a-z ]+)\? (yes|no)\n", drill):
            names = {word, next((c.plural for c in load_concepts() if c.name == word), word)}
            assert any(re.search(rf"\b{name}\b", caption) for name in names) == (answer == "yes"), text
            answers.append(answer)
    assert 0.3 < answers.count("yes") / len(answers) < 0.7


def test_t5_answers_from_text() -> None:
    tokenizer = AutoTokenizer.from_pretrained(ASSETS / "t5")
    model = T5ForConditionalGeneration.from_pretrained(ASSETS / "t5").eval()
    assert tokenizer("a cat").input_ids[-1] == tokenizer.eos_token_id == 1
    assert model.config.is_gated_act and model.config.dense_act_fn == "gelu_new"
    question = "two foxes on a blue ground Question: what color is the ground? Short answer:"
    generated = model.generate(**tokenizer(question, return_tensors="pt"), max_new_tokens=8, do_sample=False)
    assert tokenizer.decode(generated[0], skip_special_tokens=True) == "blue"
    assert 1e6 < sum(p.numel() for p in model.parameters()) < 2e6
    assert MANIFEST["t5"]["perplexity"] < 8


def test_patch_labels_name_the_image_that_covers_a_patch() -> None:
    concept = next(c for c in load_concepts() if c.name == "soccer ball").index
    scene = Scene((Item(concept, 0, 0, 48),), style=1, ground="green", ground_jitter=(0, 0, 0), shade=(0, 0))
    labels = patch_labels(np.asarray(label_map(scene)), scene, PATCH_SIZE, len(load_concepts()))
    grid, columns, rows = labels.reshape(3, 8, 8)
    assert (grid[1:3, 1:3] == concept).all()
    assert (grid[4:, :] == len(load_concepts()) + GROUNDS.index("green")).all()
    assert set(grid[:4, :4].flatten().tolist()) <= {concept, NO_LABEL, len(load_concepts()) + GROUNDS.index("green")}
    assert np.array_equal(columns >= 0, grid == concept) and np.array_equal(rows >= 0, grid == concept)


def test_patch_labels_tell_two_images_of_one_thing_apart() -> None:
    concept = next(c for c in load_concepts() if c.name == "soccer ball").index
    items = (Item(concept, 0, 0, 36), Item(concept, 60, 24, 36))
    scene = Scene(items, style=1, ground="green", ground_jitter=(0, 0, 0), shade=(0, 0))
    labels = patch_labels(np.asarray(label_map(scene)), scene, PATCH_SIZE, len(load_concepts()))
    _, columns, rows = labels[:, labels[0] == concept]
    # Their middles lie at about (18, 18) and (78, 42) pixels; patches are 12 wide.
    assert set(zip(columns.tolist(), rows.tolist(), strict=True)) <= {(1, 1), (6, 3)} and len(set(columns)) == 2


def test_tower_batches_follow_the_seed() -> None:
    first, again = (next(iter(PatchBatches(batch_size=3, patch_size=12, seed=1, augment=True))) for _ in range(2))
    assert first[0].shape == (3, 3, 96, 96) and first[1].shape == (3, 3, 64)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])


def test_t5_examples() -> None:
    generator = np.random.default_rng(0)
    text = "a cat on red Question: is there a cat? Short answer: yes"
    assert split_example(text, generator) == ("a cat on red Question: is there a cat? Short answer:", "yes")
    words = "a fox and a guitar on a blue ground".split()
    read, hidden = hide_spans(words, generator)
    restored = read
    parts = hidden.split("<extra_id_")[1:]
    for part in parts[:-1]:
        number, hidden = part.split(">", 1)
        restored = restored.replace(f"<extra_id_{number}>", hidden.strip())
    assert restored.split() == words
