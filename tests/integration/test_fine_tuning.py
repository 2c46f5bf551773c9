"""Fine-tuning through the command: larger images, a trained tower, and an export that holds everything trained."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from shard_files import image, write_shards, write_tokenizer
from tiny_run import arguments
from training_process import assert_same_run, run_folder, start

import blip2_train as b2
from blip2_train.checkpoints.export import read_export
from blip2_train.checkpoints.files import read_weights
from blip2_train.cli.train.run import build, train
from blip2_train.config.compose import compose
from blip2_train.models.configs import VisionConfig
from blip2_train.models.vision_tower import create_timm_tower

KILL = 7
SHORT = ("data.num_workers=0", "module.generation.max_new_tokens=4", "module.generation.num_beams=2")
LARGER = ("image_size=36", "validate_every=3")
POSITIONS = "vision_model.tower.pos_embed"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder with finished tiny runs of both stages, on images of 24 pixels with a frozen tower."""
    folder = tmp_path_factory.mktemp("finetune")
    write_shards(folder / "shards", [9, 4, 13])
    write_tokenizer(folder / "tokenizer")
    torch.manual_seed(4)
    sizes = {"patch_size": 12, "embed_dim": 16, "depth": 2, "num_heads": 2}
    whole = create_timm_tower(
        VisionConfig(name="vit_tiny_patch16_224", weights="random", image_size=24, overrides=sizes)
    )
    save_file(whole.state_dict(), folder / "tower.safetensors")
    train(compose([*settings(folder / "outputs", "demo_stage1"), "init_from=null"]))
    train(compose([*settings(folder / "outputs", "demo_stage2_opt_instruct"), *SHORT, "init_from=last:demo_stage1"]))
    return folder / "outputs"


def settings(outputs: Path, recipe: str, *more: str) -> list[str]:
    """Arguments of a tiny run of a recipe, with the tower of the fixture."""
    tower = f"model.vision.weights={outputs.parent / 'tower.safetensors'}"
    return [*arguments(outputs), f"experiment={recipe}", tower, "data.num_workers=0", *more]


TRAINED_TOWER = ("model.vision.frozen=false", "optim.layer_decay=0.7")
RECIPES = {"demo_retrieval": TRAINED_TOWER, "demo_caption_opt": SHORT}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_everything_trains_but_the_language_model(outputs: Path, recipe: str, tmp_path: Path) -> None:
    run = build(compose(settings(outputs, recipe, *RECIPES[recipe], *LARGER, f"paths.run_dir={tmp_path / 'run'}")))
    model, published = run.module.model, read_weights(outputs.parent / "tower.safetensors")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert before[POSITIONS].shape == (1, 10, 16) and published["pos_embed"].shape == (1, 5, 16)
    assert torch.equal(before["vision_model.tower.patch_embed.proj.weight"], published["patch_embed.proj.weight"])
    run.trainer.fit(run.module, datamodule=run.data)
    after = model.state_dict()
    still = {name for name in before if torch.equal(after[name], before[name])}
    assert all(name.startswith("language_model.") for name in still), sorted(still)[:5]
    assert any(name.startswith("language_model.") for name in still) == (recipe == "demo_caption_opt")
    scales = {group["lr_scale"] for group in run.trainer.optimizers[0].param_groups}
    assert len(scales) == (3 if recipe == "demo_retrieval" else 1)  # stem, one block, everything else


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_export_holds_the_tower_and_is_used_alone(
    outputs: Path, recipe: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train(compose(settings(outputs, recipe, *RECIPES[recipe], *LARGER)))
    printed = capsys.readouterr().out
    assert "vision weights" in printed and "export " in printed
    (folder,) = (outputs / recipe).iterdir()
    state, manifest = read_export(folder / "export")
    assert state[POSITIONS].shape == (1, 10, 16) and not any(name.startswith("language_model.") for name in state)
    assert manifest.parent is not None and manifest.processor["image_size"] == 36
    best = [path.name for path in (folder / "checkpoints").glob("best_*.ckpt")]
    assert best in ([f"best_{manifest.step:07d}.ckpt"], ["best_0000009.ckpt"])
    (outputs.parent / "tower.safetensors").rename(outputs.parent / "moved")
    try:
        model, _ = b2.load_pretrained(folder)
    finally:
        (outputs.parent / "moved").rename(outputs.parent / "tower.safetensors")
    assert torch.equal(model.network.state_dict()[POSITIONS], state[POSITIONS])
    (outputs.parent / "a.jpg").write_bytes(image())
    if recipe == "demo_caption_opt":
        assert model.processor.prompt == "a picture of"
        assert len(model.caption([outputs.parent / "a.jpg"], max_new_tokens=4)) == 1
    else:
        assert model.match([outputs.parent / "a.jpg"], ["a red cat"]).itc.shape == (1, 1)


@pytest.mark.slow
def test_a_trained_tower_resumes_bitwise(outputs: Path) -> None:
    workspace = outputs.parent
    export = next((outputs / "demo_stage1").iterdir())
    chosen = settings(outputs, "demo_retrieval", *TRAINED_TOWER, *LARGER)
    common = [*chosen[len(arguments(outputs)) :], f"init_from={export}"]
    start(workspace / "whole", *common, other=True)
    start(workspace / "killed", *common, kill_at=KILL, code=-signal.SIGKILL)
    assert "going on from step 6" in start(workspace / "killed", *common, "resume_from=last")
    assert_same_run(workspace / "whole", workspace / "killed")
    assert POSITIONS in read_export(run_folder(workspace / "killed") / "export")[0]
