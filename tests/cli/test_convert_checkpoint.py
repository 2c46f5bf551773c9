"""The command that converts weights, from the outside: what it prints, writes, refuses and leaves behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from foreign_models import DEMO, EVA, our_model, save_theirs, their_model
from permissions import group_umask, permissions
from torch import nn
from warm_process import WarmProcess

from blip2_train.checkpoints.foreign_exports.huggingface import write_huggingface
from blip2_train.checkpoints.frozen_parts import load_language_model
from blip2_train.checkpoints.pretrained import open_pretrained
from blip2_train.cli import conversion
from blip2_train.cli.convert_checkpoint import main
from blip2_train.cli.terminal import run_command
from blip2_train.errors import CheckpointMismatch


def converted(*arguments: object) -> int:
    return run_command(main, [str(argument) for argument in arguments])


def assert_same_weights(model: nn.Module, other: nn.Module) -> None:
    state, again = model.state_dict(), other.state_dict()
    assert state.keys() == again.keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in state.items())


@pytest.mark.parametrize("kind", ["opt", "t5"])
def test_through_all_formats(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Hugging Face, ours, LAVIS, ours, Hugging Face: nothing changes on the way."""
    model, processor, manifest = our_model(kind, EVA, weights="pretrained")
    load_language_model(model)
    start = write_huggingface(tmp_path / "start", model, processor, manifest)
    assert converted(start, "--to", tmp_path / "ours") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "source: Hugging Face Blip2ForConditionalGeneration made by blip2_train"
    assert printed[1].endswith("tensors") and printed[2:4] == ["  fresh:   nothing", "  ignored: nothing"]
    assert printed[-1].startswith(f"written: {tmp_path / 'ours'} (blip2_train, ")
    assert converted(tmp_path / "ours", "--to", tmp_path / "x.pth") == 0
    assert converted(tmp_path / "x.pth", "--to", tmp_path / "back", "--language-model", DEMO / kind) == 0
    assert f"source: LAVIS stage 2 ({kind.upper()}, with its tower)" in capsys.readouterr().out
    end = tmp_path / "end"
    assert converted(tmp_path / "back", "--format", "huggingface", "--to", end, "--language-model", DEMO / kind) == 0
    assert_same_weights(model, open_pretrained(end).model)
    assert_same_weights(model, open_pretrained(tmp_path / "ours").model)
    assert {path.name for path in tmp_path.iterdir()} == {"start", "ours", "x.pth", "back", "end"}


def test_weights_from_elsewhere_name_their_parent(tmp_path: Path) -> None:
    folder = save_theirs(their_model("retrieval"), "retrieval", tmp_path / "theirs")
    assert converted(folder, "--to", tmp_path / "ours") == 0
    about = json.loads((tmp_path / "ours" / "manifest.json").read_text())
    assert about["stage"] == "stage1" and about["recipe"].startswith("converted from Hugging Face")
    assert len(about["parent"]) == 64
    assert converted(tmp_path / "ours", "--to", tmp_path / "card", "--format", "huggingface") == 0
    assert about["parent"] in (tmp_path / "card" / "README.md").read_text("utf-8")


@pytest.mark.parametrize("form", ["blip2_train", "huggingface"])
def test_a_group_reads_what_is_written(form: str, tmp_path: Path) -> None:
    folder = save_theirs(their_model("retrieval"), "retrieval", tmp_path / "theirs")
    with group_umask():
        assert converted(folder, "--to", tmp_path / "written", "--format", form) == 0
    modes = permissions(tmp_path / "written")
    assert "model.safetensors" in modes and set(modes.values()) == {"-rw-r-----"}


def test_what_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_theirs(their_model("retrieval"), "retrieval", tmp_path / "theirs")
    (tmp_path / "kept").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for arguments, message in [
        ((folder, "--to", tmp_path / "kept"), "exists already"),
        ((folder, "--to", tmp_path / "x", "--format", "lavis"), "the format lavis is a file that ends in .pth"),
        ((folder, "--to", tmp_path / "x.pth", "--format", "huggingface"), "the format huggingface is a folder"),
        ((tmp_path / "absent", "--to", tmp_path / "x"), "there is no"),
        ((tmp_path / "kept", "--to", tmp_path / "x"), "what can be read is an export of blip2_train"),
        (("Salesforce/blip2-opt-2.7b", "--to", tmp_path / "x"), "could not be fetched"),
        ((folder, "--to", tmp_path / "x.pth"), "LAVIS has no tower like vit_base_patch16_224"),
        ((folder, "--to", tmp_path / "x", "--vision-weights", "y"), "holds these weights itself"),
    ]:
        assert converted(*arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and message in error
        assert sorted(tmp_path.rglob("*")) == before


def test_nothing_half_written_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_theirs(their_model("retrieval"), "retrieval", tmp_path / "theirs")

    def fails(target: Path, *_: object, **__: object) -> None:
        target.mkdir()
        (target / "half").write_text("x")
        raise CheckpointMismatch("the disk is full")

    monkeypatch.setattr(conversion, "write_huggingface", fails)
    assert converted(folder, "--to", tmp_path / "new", "--format", "huggingface") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("--to", "--format", "blip2_train", "huggingface", "lavis", "--dtype"))


def test_the_newest_export_of_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    theirs = save_theirs(their_model("retrieval"), "retrieval", tmp_path / "theirs")
    assert converted(theirs, "--to", tmp_path / "outputs" / "mine" / "a run" / "export") == 0
    assert converted("last:mine", "--to", tmp_path / "x") == 0
    assert converted("last:other", "--to", tmp_path / "y") == 2 and not (tmp_path / "y").exists()


def test_the_script(root: Path, tmp_path: Path) -> None:
    script = str(root / "scripts" / "convert_checkpoint.py")
    process = WarmProcess([script, "nowhere", "--to", str(tmp_path / "x")], folder=tmp_path)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2 and errors.splitlines()[-1].startswith("error: there is no nowhere")
    assert list(tmp_path.iterdir()) == []
