"""Runs of the paper's recipes from weights of every format, on somebody's own captions: one command each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from caption_files import as_csv, rows, write_images
from foreign_models import EVA, our_model, save_theirs, their_model

from blip2_train.checkpoints.assembly import complete_manifest
from blip2_train.checkpoints.foreign_exports.lavis import write_lavis
from blip2_train.checkpoints.pretrained import open_pretrained
from blip2_train.cli.check import main as check
from blip2_train.cli.convert_checkpoint import main as convert
from blip2_train.cli.describe import main as describe
from blip2_train.cli.terminal import run_command
from blip2_train.cli.train.command import main
from blip2_train.cli.train.run import train
from blip2_train.config.compose import asset, compose

RECIPES = {"opt": "caption_coco_opt_2.7b", "t5": "caption_coco_opt_2.7b", "retrieval": "retrieval_coco_vit_g"}
SHORT = (
    "data=captions", "data.holdout=2", "data.num_workers=0", "image_size=32", "steps=2", "global_batch_size=4",
    "validate_every=2", "monitor=null", "optim.warmup_steps=1", "trainer=cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def captions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captions")
    write_images(folder, 12)
    return as_csv(folder / "mine", rows(12))


def settings(kind: str, init_from: object, captions: Path, run: Path, *more: str) -> list[str]:
    common = [
        f"experiment={RECIPES[kind]}",
        f"init_from={init_from}",
        f"data.source={captions}",
        f"paths.run_dir={run}",
    ]
    beams = [] if kind == "retrieval" else ["module.generation.num_beams=2", "module.generation.max_new_tokens=5"]
    return [*common, *beams, *SHORT, *more]


@pytest.mark.slow
@pytest.mark.parametrize("kind", RECIPES)
def test_a_folder_of_the_hub_is_fine_tuned_and_opened_again(kind: str, captions: Path, tmp_path: Path) -> None:
    """Sizes, tower, tokenizer and language model are the folder's; what is exported names the folder for the rest."""
    theirs = their_model(kind)
    folder = save_theirs(theirs, kind, tmp_path / "theirs")
    results = train(compose(settings(kind, folder, captions, tmp_path / "run")))
    assert results["steps"] == 2 and results["train/loss"] > 0
    opened = open_pretrained(tmp_path / "run")
    assert torch.equal(opened.model.state_dict()["query_tokens"], theirs.query_tokens) is False
    if kind == "retrieval":
        assert len(opened.processor.text_tokenizer) == opened.model.qformer_config.vocab_size
        return
    language = opened.model.language_model.state_dict()
    for name, tensor in theirs.language_model.state_dict().items():
        assert torch.equal(language[name], tensor.to(language[name].dtype)), name
    back = tmp_path / "back"
    assert run_command(convert, [str(tmp_path / "run"), "--to", str(back), "--format", "huggingface"]) == 0
    again = open_pretrained(back)
    for name, tensor in opened.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor.to(again.model.state_dict()[name].dtype)), name


def test_a_file_of_the_original_code_starts_a_run(captions: Path, tmp_path: Path) -> None:
    """Stage 1 in LAVIS's layout starts stage 2 of the demo's OPT, through the command."""
    model, processor, manifest = our_model("retrieval", EVA)
    processor_tokens = complete_manifest(manifest, model, processor)
    write_lavis(tmp_path / "stage1.pth", model, with_tower=True, manifest=processor_tokens, config="")
    more = ["experiment=demo_stage2_opt", "max_text_length=24"]
    assert run_command(main, settings("opt", tmp_path / "stage1.pth", captions, tmp_path / "run", *more)) == 0
    opened = open_pretrained(tmp_path / "run")
    tower = {n: t for n, t in model.state_dict().items() if n.startswith("vision_model.")}
    for name, tensor in tower.items():
        assert torch.equal(opened.model.state_dict()[name], tensor), name
    about = json.loads((tmp_path / "run/export/manifest.json").read_text())
    assert about["architecture"]["vision"]["weights"] == str(tmp_path / "stage1.pth") and len(about["parent"]) == 64


def test_a_tower_that_was_trained_stays_beside_what_is_trained_on_it(captions: Path, tmp_path: Path) -> None:
    """The first run exports its tower, the second freezes it: its export names the first, not what that came from."""
    folder = save_theirs(their_model("opt"), "opt", tmp_path / "theirs")
    train(compose(settings("opt", folder, captions, tmp_path / "first")))
    frozen = ["model.vision.frozen=true", "model.vision.gradient_checkpointing=false"]
    train(compose(settings("opt", tmp_path / "first", captions, tmp_path / "second", *frozen)))
    first, second = (open_pretrained(tmp_path / name).model.state_dict() for name in ("first", "second"))
    names = [name for name in first if name.startswith("vision_model.")]
    assert names and all(torch.equal(first[name], second[name]) for name in names)
    changed = [name for name in first if name.startswith("qformer.") and not torch.equal(first[name], second[name])]
    assert changed


def test_what_cannot_be_had_is_one_line(captions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given, words in (
        (tmp_path / "nothing", f"there is no {tmp_path / 'nothing'}"),
        (asset("demo/bert"), "is not known here"),
        (captions, "cannot be read as weights"),
    ):
        run = tmp_path / "run"
        assert run_command(main, settings("opt", given, captions, run, "experiment=demo_caption_opt")) == 2
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert line.startswith("error: ") and words in line, line
        assert not run.exists()


@pytest.mark.parametrize("command", [main, check])
@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("init_from=no/such/folder", "there is no no/such/folder"),
        ("init_from=last:no_recipe", "no run under"),
        ("init_from=Salesforce/blip2-opt-2.7b", "Salesforce/blip2-opt-2.7b is no local path"),
        ("init_text_from=no/such/folder", "there is no no/such/folder"),
    ],
)
def test_missing_weights_are_reported_before_what_the_recipe_lacks(
    command: Callable[[list[str]], None], setting: str, words: str, captions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tower, tokenizer and language model would be the weights' own, not the recipe's, which cannot be had here."""
    recipe = ["experiment=caption_coco_opt_2.7b", "init_from=null", "data=captions", f"data.source={captions}"]
    assert run_command(command, [*recipe, setting]) == 2
    assert words in capsys.readouterr().err


def test_the_papers_count_stands_only_beside_the_papers_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_theirs(their_model("opt"), "opt", tmp_path / "theirs")
    assert run_command(describe, ["experiment=caption_coco_opt_2.7b", f"init_from={folder}"]) == 0
    shown = capsys.readouterr().out
    assert "trainable parameters: " in shown and "of the paper" not in shown
    assert run_command(describe, ["experiment=caption_coco_opt_2.7b", "init_from=no/such/folder"]) == 0
    assert "there is no no/such/folder" in capsys.readouterr().err
