"""Every wrong setting ends with one line that names the thing and the fix, and with exit code 2."""

import subprocess
import sys
from pathlib import Path

import pytest
from warm_process import WarmProcess

from blip2_train.cli.terminal import config_from, run_command

SOURCE = "blip2_train.data.sources.config.SourceConfig"
DEMO = "experiment=demo_stage1"
WRONG = {
    "no recipe": ([], ["experiment=<name>", "demo_stage1", "stage1_vit_g"]),
    "recipe under a misspelt key": (["experimnt=demo_stage1"], ["'experimnt'", "did you mean 'experiment'?"]),
    "unknown recipe": (["experiment=stage1_vitg"], ["'stage1_vitg'", "did you mean stage1_vit_g?"]),
    "two recipes": (["experiment=[demo_stage1,stage1_vit_l]"], ["experiment has no option", "available: caption_coco"]),
    "unknown key": ([DEMO, "optim.warmup_step=5"], ["'optim.warmup_step'", "did you mean 'optim.warmup_steps'?"]),
    "unknown key with +": ([DEMO, "+optim.lrr=1e-3"], ["'optim.lrr'", "did you mean 'optim.lr'?"]),
    "unknown key with ++": ([DEMO, "++model.vision.freeze=false"], ["'model.vision.freeze'", "'model.vision.frozen'?"]),
    "unknown top key": ([DEMO, "batch_size=32"], ["'batch_size'", "did you mean 'global_batch_size'?"]),
    "unknown top key, nothing like it": ([DEMO, "banana=3"], ["'banana'", "steps"]),
    "key of another part": ([DEMO, "lr=1e-3"], ["'lr'", "did you mean 'optim.lr'?"]),
    "name of another library below its part": ([DEMO, "optim.learning_rate=1"], ["did you mean 'optim.lr'?"]),
    "key below an unknown part": ([DEMO, "train.lr=1e-3"], ["'train.lr'", "did you mean 'optim.lr'?"]),
    "key in an item of a list": ([DEMO, f"data.sources=[{{_target_: {SOURCE}, pth: x}}]"], ["data.sources[0].pth"]),
    "key of a logger that takes any": ([DEMO, "logger=wandb", "logger.wandb.projct=x"], ["'logger.wandb.project'?"]),
    "new callback without target": ([DEMO, "callbacks.stop.patience=3"], ["callbacks.stop", "_target_"]),
    "key of a part that is none": ([DEMO, "objective.weights.itg=0"], ["did you mean 'objective.itg_weight'?"]),
    "recipe without its key": (["demo_stage1"], ["cannot read 'demo_stage1'", "write experiment=demo_stage1"]),
    "blanks around =": ([DEMO, "seed", "=", "1"], ["'seed = 1'", "write seed=1, without blanks"]),
    "blank before =": ([DEMO, "seed", "=1"], ["'seed =1'", "write seed=1, without blanks"]),
    "blank behind =": ([DEMO, "seed=", "1"], ["'seed= 1'", "write seed=1, without blanks"]),
    "empty value, then a key to delete": ([DEMO, "init_from=", "~optim.momentum"], ["~optim.momentum", "no such key"]),
    "no number": ([DEMO, "optim.lr=1e-4x"], ["optim.lr is '1e-4x'", "a number"]),
    "no whole number": ([DEMO, "steps=2.5"], ["steps is 2.5", "a whole number"]),
    "float for a count": ([DEMO, "steps=1e5"], ["steps is 100000.0", "a whole number"]),
    "no boolean": ([DEMO, "model.vision.frozen=0"], ["model.vision.frozen is 0", "true or false"]),
    "null": ([DEMO, "seed=null"], ["seed is null", "a whole number"]),
    "list too short": ([DEMO, "optim.betas=[0.9]"], ["optim.betas is [0.9]", "a list of 2 values"]),
    "no such choice": ([DEMO, "objective.gather=ful"], ["objective.gather is 'ful'", "did you mean full?"]),
    "precision": ([DEMO, "trainer.precision=fp16"], ["trainer.precision is 'fp16'", "16-mixed"]),
    "out of range": ([DEMO, "optim.weight_decay=-1"], ["optim.weight_decay must be 0 or more", "-1"]),
    "out of range, list": ([DEMO, "optim.betas=[0.9,1.5]"], ["optim.betas must be", "1.5"]),
    "range between keys": ([DEMO, "optim.min_lr=1"], ["optim.min_lr must be between 0 and lr"]),
    "warm-up too long": ([DEMO, "optim.warmup_steps=10000000"], ["optim.warmup_steps", "10000000", "steps"]),
    "no steps": ([DEMO, "steps=0"], ["steps must be at least 1, got 0"]),
    "validation never": ([DEMO, "validate_every=1000000"], ["validate_every", "validate_every=null"]),
    "batch and accumulation": ([DEMO, "global_batch_size=64", "accumulate=3"], ["not divisible by accumulate 3", "63"]),
    "heads": ([f"{DEMO}_bert", "model.qformer.num_heads=5"], ["model.qformer.num_heads=5 contradicts", "which has 4"]),
    "trained fp16 tower": ([DEMO, "model.vision.frozen=false", "model.vision.dtype=float16"], ["NaN", "float32"]),
    "unknown dtype": ([DEMO, "model.vision.dtype=fp16"], ["model.vision", "'fp16'", "float16"]),
    "unknown option": ([DEMO, "data=emoji"], ["data has no option 'emoji'", "emoji_scenes"]),
    "unknown trainer": ([DEMO, "trainer=dpp"], ["trainer has no option 'dpp'", "did you mean ddp?"]),
    "value for a group": ([DEMO, "optim=1e-3"], ["optim has no option", "adamw_cosine"]),
    "no option": ([DEMO, "logger=null"], ["logger has no option", "csv"]),
    "unknown group": ([DEMO, "model/vison_model=tiny"], ["'model/vison_model'", "'model/vision_model'"]),
    "group without its place": ([DEMO, "vision_model=tiny"], ["'vision_model'", "'model/vision_model'"]),
    "group with a dot": ([DEMO, "model.qformer_=tiny"], ["'model.qformer_'", "'model.qformer'"]),
    "option as a value": ([DEMO, "model.vision=tiny"], ["model.vision is 'tiny'", "group=option"]),
    "copy of a number": ([DEMO, "data.image_size=64"], ["'data.image_size' follows 'image_size'", "set image_size="]),
    "copy of the steps": ([DEMO, "trainer.max_steps=5"], ["'trainer.max_steps' follows 'steps'"]),
    "unknown class": ([DEMO, "model._target_=blip2_train.models.Imagetext"], ["model._target_", "Imagetext"]),
    "unknown interpolation": ([DEMO, "optim.lr='${nothing}'"], ["optim.lr", "nothing"]),
    "required key deleted": ([DEMO, "~optim.lr"], ["optim.lr has no value", "optim.lr=<value>"]),
    "unknown key deleted": ([DEMO, "~optim.momentum"], ["~optim.momentum", "no such key"]),
    "sweep": ([DEMO, "optim.lr=1e-3,1e-4"], ["optim.lr=1e-3,1e-4", "train.py --multirun", "[a,b]"]),
    "--multirun": ([DEMO, "-m", "seed=1,2"], ["train.py --multirun"]),
    "option with dashes": ([DEMO, "--steps", "5"], ["'--steps'", "key=value"]),
    "key without a name": ([DEMO, "~"], ["'~' names no key", "key=value"]),
    "name that no file can have": ([DEMO, f"~optim.{'x' * 300}"], ["no such key"]),
    "word": ([DEMO, "steps"], ["'steps'", "key=value"]),
    "space instead of =": (["experiment", "demo_stage1"], ["'experiment'", "key=value"]),
    "braces": (
        [DEMO, "data=shards", "data.source={000..100}.tar"],
        ["quote the value twice", "data.source='\"{000..100}.tar\"'"],
    ),
    "= in a path": ([DEMO, "data=shards", "data.source=/data/name=x"], ["quote the value", "data.source"]),
    "no data": ([DEMO, "data=shards"], ["data.source=<file of captions; folder, glob or list of", "demo_stage1"]),
    "source where none is asked": ([DEMO, "data.source=/data/shards"], ["'data.source'", "'data.sources'"]),
    "Hydra's launcher": ([DEMO, "hydra/launcher=submitit_slurm"], ["'hydra/launcher'", "--multirun"]),
    "Hydra's own": ([DEMO, "hydra.run.dir=/elsewhere"], ["'hydra.run.dir'", "paths.output_dir"]),
    "folder of recipes": ([DEMO, "--config-dir", "/does/not/exist"], ["--config-dir", "/does/not/exist"]),
}  # fmt: skip
BASE = "defaults: [demo_stage1, _self_]\n"
TINY = "{override /model/vision_model: tiny}, {override /model/qformer: tiny}, {override /data: emoji_scenes}"
HEAD = "# @package _global_\n# {name}\n"
TYPOS = {
    "typo": (BASE + "optim: {warmup_stps: 3}\n", ["'optim.warmup_stps'", "experiment/mine.yaml", "steps'?"]),
    "typo at the top": (BASE + "step: 3\n", ["'step'", "experiment/mine.yaml", "'steps'?"]),
    "wrong type": (BASE + "steps: many\n", ["steps is 'many'", "a whole number"]),
    "unknown option": ("defaults: [demo_stage1, {override /data: emoji_scene}]\n", ["did you mean emoji_scenes?"]),
    "unknown group": ("defaults: [demo_stage1, {override /dta: shards}]\n", ["'dta'", "did you mean 'data'?"]),
    "unknown base": ("defaults: [demo_stage2]\n", ["demo_stage2", "did you mean demo_stage1?"]),
    "option as value": (BASE + "optim: adamw_cosine\n", ["optim", "override /group: option"]),
    "init_from forgotten": (
        f"defaults: [{TINY}]\nsteps: 9\nvalidate_every: 3\nglobal_batch_size: 4\nimage_size: 24\nmax_text_length: 9\n"
        "optim: {lr: 1.0e-3, min_lr: 0, warmup_lr: 0, warmup_steps: 1, betas: [0.9, 0.98], weight_decay: 0}\n",
        ["recipe mine", "init_from=<export folder>"],
    ),
    "nothing chosen": ("steps: 10\n", ["is not chosen", "<"]),
    "no YAML": (BASE + "optim: {lr: 1\n", ["YAML", "mine.yaml"]),
    "too deep": (f"{BASE}steps: {'[' * 3000}\n", ["experiment/mine.yaml cannot be read", "too deep"]),
    "thousands of digits": (f"{BASE}steps: {'1' * 5000}\n", ["experiment/mine.yaml cannot be read", "digits"]),
}  # fmt: skip


def failure(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The only line that a command with these arguments prints."""

    def main(given: list[str]) -> None:
        config_from(given, "Test.", "test")

    assert run_command(main, arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    lines = output.err.splitlines()
    assert len(lines) == 1, output.err
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "parts"), WRONG.values(), ids=WRONG.keys())
def test_wrong_override(arguments: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    line = failure(arguments, capsys)
    assert [part for part in parts if part not in line] == [], line


@pytest.mark.parametrize(("recipe", "parts"), TYPOS.values(), ids=TYPOS.keys())
def test_typo_in_recipe(recipe: str, parts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(HEAD + recipe)
    line = failure(["--config-dir", str(tmp_path), "experiment=mine"], capsys)
    assert [part for part in parts if part not in line] == [], line


@pytest.mark.parametrize("content", [b"# @package _global_\nsteps: \xff\n", b"# @pack\nsteps: 3\n"])
def test_recipe_that_is_no_text_or_has_half_a_header(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_bytes(content)
    assert "experiment/mine.yaml cannot be read" in failure(["--config-dir", str(tmp_path), "experiment=mine"], capsys)


def test_recipe_without_package_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(BASE + "steps: 300\n")
    assert "# @package _global_" in failure(["--config-dir", str(tmp_path), "experiment=mine"], capsys)


def test_right_recipe_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(HEAD + BASE + "seed: 7\n")
    config = config_from([f"--config-dir={tmp_path}", "experiment=mine", "steps=300"], "Test.", "test")
    assert config is not None
    assert (config.experiment, config.seed, config.steps) == ("mine", 7, 300)


@pytest.mark.parametrize(
    ("script", "name", "fix", "cold"),
    [
        ("train.py", "optim.lrr", "'optim.lr'", True),
        ("train.py", "trainer.device", "'trainer.devices'", False),
        ("describe.py", "model.qformer.num_querys", "'model.qformer.num_queries'", False),
    ],
)
def test_real_command(script: str, name: str, fix: str, cold: bool, root: Path, tmp_path: Path) -> None:
    """Cold: in a new interpreter, where importing torch and the rest must not print anything either."""
    command = [str(root / "scripts" / script), DEMO, f"+{name}=3"]
    process: WarmProcess | subprocess.Popen[str] = (
        subprocess.Popen(
            [sys.executable, *command], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        if cold
        else WarmProcess(command, folder=tmp_path)
    )
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert output == ""
    lines = errors.splitlines()
    assert len(lines) == 1, errors
    assert name in lines[0]
    assert fix in lines[0]
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"
