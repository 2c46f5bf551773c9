"""A stage-2 run through the command: hand-over, frozen parts, results, captions and export."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from shard_files import write_shards, write_tokenizer
from tiny_run import arguments

from blip2_train.checkpoints.export import read_export
from blip2_train.cli.terminal import run_command
from blip2_train.cli.train.command import main
from blip2_train.cli.train.run import build, train
from blip2_train.config.compose import asset, compose

STAGE_2 = ("init_from=last:demo_stage1", "module.generation.max_new_tokens=4", "module.generation.num_beams=2")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder with a finished tiny run of stage 1."""
    folder = tmp_path_factory.mktemp("stage2")
    write_shards(folder / "shards", [9, 4, 13])
    write_tokenizer(folder / "tokenizer")
    train(compose([*arguments(folder / "outputs"), "data.num_workers=0"]))
    return folder / "outputs"


def stage_2(outputs: Path, family: str, *overrides: str) -> list[str]:
    """Arguments of a tiny run of stage 2 that starts from the tiny stage 1."""
    return [*arguments(outputs), f"experiment=demo_stage2_{family}", "data.num_workers=0", *STAGE_2, *overrides]


@pytest.mark.parametrize("family", ["opt", "t5"])
def test_a_run_from_the_newest_export(outputs: Path, family: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = load_file(asset(f"demo/{family}/model.safetensors"))
    results = train(compose(stage_2(outputs, family)))
    assert results["steps"] == 9 and results["val/pictures"] == 2 and 0 <= results["val/names_right"] <= 100
    assert results["val/cider"] >= 0 and results["val/loss_lm"] > 0
    (folder,) = (outputs / f"demo_stage2_{family}").iterdir()
    state, manifest = read_export(folder / "export")
    assert manifest.stage == "stage2" and manifest.recipe == f"demo_stage2_{family}"
    assert manifest.parent is not None and len(manifest.parent) == 64
    assert manifest.architecture["language"]["name"] == f"package:/assets/demo/{family}"
    assert not any(name.startswith(("vision_model.", "language_model.")) for name in state)
    assert {"query_tokens", "ln_vision.weight", "language_projection.weight"} < state.keys()
    assert not any(".intermediate." in name for name in state)
    assert load_file(asset(f"demo/{family}/model.safetensors")).keys() == before.keys()
    shown = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    assert [line["step"] for line in shown] == [9, 9] and all(line["reference"] for line in shown)
    assert (folder / "captions.png").read_bytes().startswith(b"\x89PNG") and (folder / "curves.png").is_file()
    printed = capsys.readouterr().out
    assert "language model" in printed and "CIDEr" in printed and "says" in printed
    log = (folder / "run.log").read_text("utf-8")
    assert "  fresh:   " in log and "optimiser group 'decay'" in log and "CIDEr" in log
    before = [line for line in printed[: printed.index("held-out, step")].splitlines() if not line.startswith("step ")]
    assert "  fresh:   " not in printed and len(before) <= 15, printed


@pytest.mark.parametrize("family", ["opt", "t5"])
def test_frozen_means_frozen(outputs: Path, family: str, tmp_path: Path) -> None:
    run = build(compose(stage_2(outputs, family, f"paths.run_dir={tmp_path / 'run'}", "validate_every=null")))
    frozen = ("vision_model.", "language_model.")
    model = run.module.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if name.startswith(frozen)}
    run.trainer.fit(run.module, datamodule=run.data)
    after = model.state_dict()
    assert before and all(torch.equal(after[name], tensor) for name, tensor in before.items())
    optimizer = run.trainer.optimizers[0]
    owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert owned == {id(p) for p in model.parameters() if p.requires_grad}
    assert all(optimizer.state[p] for p in model.parameters() if p.requires_grad)
    checkpoint = torch.load(next((tmp_path / "run" / "checkpoints").iterdir()), weights_only=True)
    assert not any(
        name.startswith(("model.vision_model.", "model.language_model.")) for name in checkpoint["state_dict"]
    )


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["init_from=last:stage1_vit_g"], "has an export; run experiment=stage1_vit_g first"),
        (["init_from=no/such/folder"], "there is no no/such/folder"),
        (["collator=encoder_decoder"], "pass collator=decoder_only"),
        (["model.language.end_token=nothing like it"], "choose a single token"),
        (["model.language.name=no/such/folder/anywhere"], "there is no language model folder"),
        (["model.qformer.num_queries=5"], "model.qformer.num_queries=5 contradicts export"),
        (["collator.prompt=a photo of a photo of a photo of a photo of a photo of"], "leaves no room for text"),
        (["module.generation.max_new_tokens=400"], "reads at most"),
        (["module.generation.num_beams=0"], "num_beams"),
    ],
)
def test_what_cannot_work_is_one_line(
    outputs: Path, overrides: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(main, stage_2(outputs, "opt", *overrides)) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and words in error and "\n" not in error


def test_a_tokenizer_without_padding_needs_no_setting(outputs: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoModelForCausalLM.from_pretrained(asset("demo/opt")).save_pretrained(tmp_path / "lm")
    tokenizer = AutoTokenizer.from_pretrained(asset("demo/opt"))
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "lm")
    name, run = f"model.language.name={tmp_path / 'lm'}", f"paths.run_dir={tmp_path / 'run'}"
    assert run_command(main, stage_2(outputs, "opt", name, "debug=fast", run)) == 0
