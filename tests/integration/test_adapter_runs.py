"""Runs with adapters through the commands: killed and resumed, exported, opened, and continued."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_run import arguments
from training_process import assert_same_run, run_folder, start, write_data

from blip2_train.cli.describe import main as describe
from blip2_train.cli.export import main as export
from blip2_train.cli.terminal import run_command
from blip2_train.cli.train.command import main
from blip2_train.cli.train.run import train
from blip2_train.config.compose import compose
from blip2_train.models.adapted_layers import is_adapter
from blip2_train.pretrained import load_pretrained

pytest.importorskip("peft", reason="the extra 'peft' is not installed")

TOWER = (  # an export does not hold a frozen tower, so a random one could not be had again
    "model.vision.weights=${asset:demo/vision/model.safetensors}",
    "model.vision.overrides={patch_size: 12, embed_dim: 128, depth: 4, num_heads: 4}",
)
SHORT = ("data.num_workers=0", "module.generation.max_new_tokens=4", "module.generation.num_beams=2")
LORA = ("experiment=demo_stage2_opt", "peft=lora", "peft.r=4", "peft.dropout=0.2", *SHORT)
ADAPTER = Path("adapter") / "adapter_model.safetensors"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def whole(workspace: Path) -> Path:
    """Run folder of a stage 2 with adapters on its language model, from scratch."""
    start(workspace / "whole", *TOWER, *LORA, "init_from=null", other=True)
    return run_folder(workspace / "whole")


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(workspace: Path, whole: Path) -> None:
    folder, settings = workspace / "killed", (*TOWER, *LORA, "init_from=null")
    start(folder, *settings, kill_at=7, code=-signal.SIGKILL)
    assert "going on from step 6" in start(folder, *settings, "resume_from=last")
    assert_same_run(workspace / "whole", folder)
    a, b = (load_file(run / "export" / ADAPTER) for run in (whole, run_folder(folder)))
    assert a.keys() == b.keys() and all(torch.equal(tensor, b[name]) for name, tensor in a.items())
    assert all(tensor.abs().max() > 0 for name, tensor in a.items() if "lora_B" in name), "they did not train"
    checkpoint = torch.load(whole / "checkpoints" / "step_0000009.ckpt", weights_only=True)["state_dict"]
    assert sum(map(is_adapter, checkpoint)) == len(a) == 2 * 4 * 2
    assert not any("language_model" in name and not is_adapter(name) for name in checkpoint)


def test_the_export_writes_with_its_adapters_and_can_be_made_again(whole: Path, tmp_path: Path) -> None:
    assert run_command(export, [str(whole), str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / ADAPTER).read_bytes() == (whole / "export" / ADAPTER).read_bytes()
    model, _ = load_pretrained(tmp_path / "again")
    image = Image.new("RGB", (24, 24), (200, 10, 10))
    assert len(model.caption([image], num_beams=1, max_new_tokens=4)) == 1
    about = json.loads((whole / "export" / "adapter" / "adapter_config.json").read_text())
    assert about["peft_type"] == "LORA" and about["r"] == 4 and sorted(about["target_modules"]) == ["q_proj", "v_proj"]


def test_a_later_run_goes_on_with_them_or_is_refused(
    workspace: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ("steps=1", "optim.warmup_steps=0", "validate_every=null", *SHORT)
    following = [*arguments(workspace / "next"), *TOWER, *quick, "experiment=demo_stage2_opt", f"init_from={whole}"]
    assert run_command(main, [*following, "peft=lora", "peft.r=4"]) == 0
    assert "adapters on language_model of export" in capsys.readouterr().out.replace("\n", " ")
    assert run_command(main, following) == 2
    assert "peft.r=4" in (error := capsys.readouterr().err.strip()) and error.count("\n") == 0


def test_adapters_on_the_qformer_of_stage_1(workspace: Path) -> None:
    outputs = workspace / "qformer"
    small = [*arguments(outputs), *TOWER, "data.num_workers=0", "optim.warmup_steps=0"]
    train(compose(small))
    (first,) = (outputs / "demo_stage1").iterdir()
    settings = [f"init_from={first}", "peft=lora", "peft.target=qformer", f"paths.run_dir={outputs / 'second'}"]
    results = train(compose([*small, *settings, "monitor=val/loss_itc", "validate_every=3"]))
    before, after = (load_file(run / "export" / "model.safetensors") for run in (first, outputs / "second"))
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    frozen = {name for name in before if name.startswith(("qformer.", "embeddings."))}
    assert {name.rsplit(".", 2)[-2] for name in moved & frozen} == {"query", "value"}
    assert "query_tokens" in moved and "itm_head.weight" in moved
    assert results["trainable_parameters"] < sum(tensor.numel() for tensor in before.values()) / 2
    load_pretrained(outputs / "second")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["experiment=demo_stage2_opt", "peft=lorra"], "did you mean lora?"),
        (["experiment=demo_stage2_opt", "peft=lora", "peft.rank=4"], "unknown key 'peft.rank'"),
        (["experiment=demo_stage2_opt", "peft=lora", "peft.r=0"], "peft.r must be at least 1"),
        (["experiment=demo_stage2_opt", "peft.r=4"], "peft has no _target_, so it builds nothing; choose an option"),
        (["experiment=demo_stage2_t5", "peft=lora", "peft.target_modules=[q_proj]"], "there are k, o, q, v, wi_0"),
        (["experiment=demo_stage1", "peft=lora"], "pass peft.target=qformer"),
    ],
)
def test_wrong_settings_are_one_line(overrides: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(describe, overrides) == 2
    error = capsys.readouterr().err.strip()
    assert words in error and error.startswith("error: ") and "\n" not in error


@pytest.mark.slow
def test_they_are_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(describe, ["experiment=stage2_vit_g_opt_2.7b", "peft=lora", "--memory"]) == 0
    printed = capsys.readouterr().out
    assert f"trainable parameters: {107_133_696 + 32 * 2 * 8 * 2 * 2560:,} of" in printed
    assert "partly frozen" in printed
