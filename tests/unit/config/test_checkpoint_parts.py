"""A checkpoint is data: nothing that it names is called, nothing is looked up, and what it lacks is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from shard_files import write_tokenizer
from tiny import image_text_model

from blip2_train.checkpoints.architecture import describe_model
from blip2_train.checkpoints.export import read_export
from blip2_train.cli.export import main as export
from blip2_train.cli.terminal import run_command
from blip2_train.models.freezing import trainable_names

COLLATOR = "blip2_train.data.batches.collate.load_image_text_collator"
State = dict[str, Any]


def checkpoint(folder: Path, **collator: Any) -> State:
    """What a run of stage 1 writes."""
    model = image_text_model()
    keep = trainable_names(model)
    values = {"_target_": COLLATOR, "tokenizer": write_tokenizer(folder / "tokenizer"), "max_text_length": 12}
    config = {"experiment": "demo_stage1", "seed": 1, "collator": values | collator}
    processor = {"image_size": 24, "max_text_length": 12, "mean": [0.5] * 3, "std": [0.5] * 3, "prompt": ""}
    return {
        "state_dict": {f"model.{name}": tensor for name, tensor in model.state_dict().items() if name in keep},
        "global_step": 7,
        "blip2_train": {
            "seed": 1,
            "steps": 9,
            "accumulate": 1,
            "config": yaml.safe_dump(config),
            "about": {"stage": "stage1", "architecture": describe_model(model), "processor": processor},
            "scores": {"step": 7, "loss_itc": 1.5},
            "parent": None,
            "frozen_fingerprint": "",
        },
    }


def run_export(folder: Path, state: Any) -> int:
    torch.save(state, folder / "step_0000007.ckpt")
    return run_command(export, [str(folder / "step_0000007.ckpt"), str(folder / "export")])


def test_a_checkpoint_becomes_an_export(tmp_path: Path) -> None:
    assert run_export(tmp_path, checkpoint(tmp_path)) == 0
    weights, manifest = read_export(tmp_path / "export")
    assert (manifest.recipe, manifest.step, manifest.metrics) == ("demo_stage1", 7, {"val/loss_itc": 1.5})
    assert set(weights) == trainable_names(image_text_model())


def test_a_checkpoint_may_name_its_collator_as_before_it_moved(tmp_path: Path) -> None:
    state = checkpoint(tmp_path, _target_="blip2_train.data.collate.load_image_text_collator")
    assert run_export(tmp_path, state) == 0


def changed(*path: str, to: Any) -> Callable[[State], None]:
    """Sets a value inside, or takes it away (`to` is the class `type`)."""

    def change(state: State) -> None:
        for key in path[:-1]:
            state = state[key]
        if to is type:
            del state[path[-1]]
        else:
            state[path[-1]] = to

    return change


def config(**values: Any) -> Callable[[State], None]:
    """Changes the configuration."""

    def change(state: State) -> None:
        parts = yaml.safe_load(state["blip2_train"]["config"])
        parts = {key: value for key, value in (parts | values).items() if value is not type}
        state["blip2_train"]["config"] = yaml.safe_dump(parts)

    return change


NOTES, TOWER = "blip2_train", ("blip2_train", "about", "architecture", "vision", "overrides")
BOMB = "a: &a [1, 1]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
WRONG: list[tuple[Callable[[State], None], str]] = [
    (
        config(collator={"_target_": "subprocess.run", "args": ["touch", "MARKER"]}),
        "_target_ is 'subprocess.run', none",
    ),
    (config(collator={"_target_": "os.getenv", "key": "SECRET"}), "_target_ is 'os.getenv', none of"),
    (config(collator={"_target_": [COLLATOR]}), "none of this project's own collators"),
    (config(collator={"tokenizer": "x"}), "_target_ is None, none of"),
    (config(collator={"_target_": COLLATOR, "tokenizer": "x"}), "missing required field max_text_length"),
    (config(collator={"_target_": COLLATOR, "tokenizer": 3, "max_text_length": 9}), "tokenizer: expected str, got int"),
    (
        config(collator={"_target_": COLLATOR, "tokenizer": "x", "max_text_length": 9, "_args_": [1]}),
        "unknown field '_args_'",
    ),
    (config(collator=type), "missing required field collator"),
    (config(experiment=type), "missing required field experiment"),
    (config(experiment="${oc.env:SECRET}"), "line 5 holds an interpolation"),
    (changed(NOTES, "config", to="[" * 5000), "nested too deep"),
    (changed(NOTES, "config", to=BOMB), "it refers to other places of itself"),
    (
        changed(NOTES, "config", to="!!python/object/apply:os.system ['touch MARKER']"),
        "could not determine a construct",
    ),
    (changed(NOTES, "config", to=f"seed: {'9' * 5000}"), "digits"),
    (changed(NOTES, "config", to=type), "blip2_train: object missing required field config"),
    (changed(NOTES, "parent", to=type), "blip2_train: object missing required field parent"),
    (changed(NOTES, "scores", "loss_itc", to="low"), "expected float, got str"),
    (changed(NOTES, "about", "stage", to=type), "missing required field stage"),
    (changed(NOTES, "about", "sha256", to="0"), "unknown field 'sha256'"),
    (changed(NOTES, "about", "processor", "std", to=[1.0]), "processor cannot be read (std: expected array"),
    (changed(*TOWER, "checkpoint_path", to="x.pth"), "overrides: checkpoint_path is nothing that a file may set"),
    (changed("state_dict", "model.query_tokens", to=3), "does not hold a plain dictionary of tensors"),
    (changed("state_dict", to=type), "state_dict is missing"),
    (changed("global_step", to="seven"), "global_step: expected int, got str"),
    (changed("global_step", to=type), "missing required field global_step"),
    (changed(NOTES, to=torch.zeros(1)), "blip2_train: Tensor is no plain value"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("change", "words"), WRONG)
def test_what_is_no_data_of_this_project_is_one_line(
    tmp_path: Path,
    change: Callable[[State], None],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET", "told_to_nobody")
    state = checkpoint(tmp_path)
    change(state)
    assert run_export(tmp_path, state) == 2
    message = capsys.readouterr()
    assert message.err.startswith(f"error: {tmp_path / 'step_0000007.ckpt'}")
    assert words in message.err and message.err.count("\n") == 1 and len(message.err) < 700
    assert "told_to_nobody" not in message.out + message.err
    assert not (tmp_path / "MARKER").exists() and not (tmp_path / "export").exists()
