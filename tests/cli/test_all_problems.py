"""All that is wrong with a configuration is told at once, each in a line, and nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from blip2_train.cli.terminal import config_from, run_command
from blip2_train.config.compose import compose
from blip2_train.errors import ConfigError, SeveralProblems

DEMO = "experiment=demo_stage1_bert"
TOGETHER = {
    "of every kind": (
        ["trainer=dpp", "optim.lrr=3", "data.image_size=3", "trainer.max_time=3", "optim.betas=[0.9]", "seed=-1"],
        [
            "trainer has no option 'dpp'; did you mean ddp?",
            "'data.image_size' follows 'image_size'",
            "unknown key 'optim.lrr': did you mean 'optim.lr'?",
            "'trainer.max_time' cannot be set: the length of a run is steps=",
            "optim.betas is [0.9]; expected a list of 2 values",
            "seed must be 0 or more, got -1",
        ],
    ),
    "ranges in several parts": (
        ["optim.weight_decay=-1", "optim.min_lr=1", "accumulate=3", "checkpoint_every=0", "model.vision.dtype=fp16"],
        [
            "checkpoint_every must be at least 1, got 0",
            "global_batch_size 64 is not divisible by accumulate 3",
            "model.vision: vision dtype 'fp16' is unknown",
            "optim.min_lr must be between 0 and lr",
            "optim.weight_decay must be 0 or more",
        ],
    ),
    "one number that others repeat": (["steps=0", "optim.eps=-1"], ["steps must be at least 1", "optim.eps must be"]),
    "contradiction to weights": (
        ["model.qformer.num_heads=5", "log_every=often"],
        ["model.qformer.num_heads=5 contradicts", "log_every is 'often'; expected a whole number"],
    ),
    "deleted and misspelt": (
        ["~optim.lr", "~seed", "optim.warmup=3"],
        ["unknown key 'optim.warmup'", "optim.lr has no value", "seed has no value"],
    ),
    "arguments": (
        ["--steps", "5", "data.source={0..3}.tar", "optim.lr=1e-3,1e-4"],
        ["unknown option '--steps'", "quote the value twice", "stands for several runs"],
    ),
}


@pytest.mark.parametrize(("arguments", "starts"), TOGETHER.values(), ids=TOGETHER.keys())
def test_every_problem_is_reported_at_once(
    arguments: list[str], starts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def main(given: list[str]) -> None:
        config_from(given, "Test.", "test")

    assert run_command(main, [DEMO, *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("error: ") for line in lines), lines
    assert len(lines) == len(starts), "\n".join(lines)
    missing = [start for start in starts if not any(start in line for line in lines)]
    assert missing == [], "\n".join(lines)


def test_the_error_lists_the_problems() -> None:
    with pytest.raises(SeveralProblems) as refused:
        compose([DEMO, "seed=-1", "log_every=0"])
    assert refused.value.problems == ("log_every must be at least 1, got 0", "seed must be 0 or more, got -1")
    with pytest.raises(ConfigError) as one:
        compose([DEMO, "seed=-1"])
    assert type(one.value) is ConfigError and str(one.value) == "seed must be 0 or more, got -1"


def test_all_that_a_recipe_lacks(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    options = "{override /model/vision_model: tiny}, {override /model/qformer: tiny}, {override /data: emoji_scenes}"
    text = f"# @package _global_\n# {{mine}}\ndefaults: [{options}]\nsteps: 3000\noptim: {{lr: -1}}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    with pytest.raises(SeveralProblems) as refused:
        compose(["experiment=mine"], tmp_path)
    keys = {problem.partition(" has no value")[0] for problem in refused.value.problems}
    assert {"global_batch_size", "image_size", "max_text_length", "optim.betas", "optim.warmup_steps"} <= keys
    assert "pass init_from=" in refused.value.problems[0]
