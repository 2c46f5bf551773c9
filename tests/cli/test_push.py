"""Uploading an export to the hub: its files, its model card, and what stands in the way, against a stand-in."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub, hub_server
from huggingface_hub import ModelCard, constants
from PIL import Image

from blip2_train.checkpoints.export import MANIFEST, read_manifest
from blip2_train.cli.export import main
from blip2_train.cli.terminal import run_command
from blip2_train.errors import ConfigError
from blip2_train.evaluation.report.content import TaskReport, TaskSettings
from blip2_train.evaluation.report.results import write_results
from blip2_train.pretrained import load_pretrained
from blip2_train.system.atomic_write import write_checked

NAME = "somebody/my-model"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with hub_server() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # whose servers are not the hub's own
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
        monkeypatch.setenv("HF_TOKEN", "hf_writes")
        yield running


@pytest.fixture
def folder(exports: dict[str, str], tmp_path: Path) -> Path:
    """An export with scores of held-out samples."""
    copied = shutil.copytree(exports["opt"], tmp_path / "run/export")
    metrics = {"val/cider": 1.25, "val/loss_lm": 0.5, "val/images": 64.0}
    write_checked(copied / MANIFEST, replace(read_manifest(copied), metrics=metrics, recipe="demo_stage2_opt").__dict__)
    return copied


def evaluation_of(checkpoint: Path, path: Path) -> Path:
    settings = TaskSettings(checkpoint=f"{checkpoint} [test]", checkpoint_fingerprint="", data_fingerprints={})
    scores = {"in-domain/cider": 1.1, "accuracy": None}
    report = TaskReport(
        name="nocaps",
        title="NoCaps | val",
        kind="captioning",
        scores=scores,
        settings=settings,
        reasons={"accuracy": "no"},
    )
    return write_results(path, [report])


def test_nothing_private_goes_where_all_can_read(hub: Hub, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub.repositories[NAME], hub.private[NAME] = {}, False
    for more, words in (([], "add --create"), (["--create"], "is there already and is public")):
        assert run_command(main, [str(folder), "--push", NAME, "--private", *more]) == 2
        assert words in capsys.readouterr().err and hub.repositories[NAME] == {}


def test_an_export_is_uploaded_with_a_card_that_the_hub_reads(
    hub: Hub, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = evaluation_of(folder, tmp_path / "results.json")
    main([str(folder), "--push", NAME, "--create", "--private", "--license", "mit", "--results", str(results)])
    out, err = capsys.readouterr()
    assert out == f"uploaded: {hub.address}/{NAME}/commit/{'1' * 40}\n" and "hf_writes" not in out + err
    files = hub.repositories[NAME]
    own = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert files.keys() == {*own, "README.md", "example.jpg"} and hub.private[NAME]
    assert all(files[name] == content for name, content in own.items())
    card = ModelCard(files["README.md"].decode())
    about = card.data
    assert (about.library_name, about.license, about.pipeline_tag) == ("blip2_train", "mit", "image-text-to-text")
    (widget,) = about.widget
    assert widget["src"] == f"https://huggingface.co/{NAME}/resolve/main/example.jpg" and "{}" not in widget["text"]
    shown = {(r.dataset_name, r.metric_type): (r.metric_name, r.metric_value) for r in about.eval_results}
    assert shown == {
        ("held-out samples of demo_stage2_opt", "cider"): ("CIDEr", 125.0),
        ("held-out samples of demo_stage2_opt", "loss_lm"): ("LM loss", 0.5),
        ("NoCaps | val", "cider"): ("CIDEr, in-domain", 110.0),
    }
    assert "| NoCaps / val | CIDEr, in-domain | 110 |" in card.text and f'load_pretrained("{NAME}")' in card.text
    vision = read_manifest(folder).architecture["vision"]
    (tower,) = re.findall(r"vision tower `(\S+)` \((.*?)\)", card.text)
    changes = [f"{key} {value}" for key, value in vision["overrides"].items()]
    assert changes and tower == (vision["name"], ", ".join([f"{vision['image_size']} pixels", *changes]))
    for name, content in files.items():
        (tmp_path / "back" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "back" / name).write_bytes(content)
    Image.open(tmp_path / "back/example.jpg").verify()
    model, _ = load_pretrained(tmp_path / "back")
    assert len(model.caption(tmp_path / "back/example.jpg", max_new_tokens=3)) == 1


def test_a_stage_1_model_and_an_own_card(hub: Hub, exports: dict[str, str], tmp_path: Path) -> None:
    hub.repositories[NAME] = {}
    Image.new("RGB", (8, 8)).save(tmp_path / "mine.png")
    main([exports["stage1"], "--push", NAME, "--example", str(tmp_path / "mine.png")])
    card = ModelCard(hub.repositories[NAME]["README.md"].decode()).data
    assert card.pipeline_tag == "zero-shot-image-classification" and card.widget[0]["src"].endswith("/example.png")
    assert card.eval_results is None and hub.repositories[NAME]["example.png"] == (tmp_path / "mine.png").read_bytes()
    own = shutil.copytree(exports["stage1"], tmp_path / "own")
    (own / "README.md").write_text("my own words")
    main([str(own), "--push", NAME])
    assert hub.repositories[NAME]["README.md"] == b"my own words"


def test_a_dry_run_shows_everything_and_asks_nobody(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    main([str(folder), "--push", NAME, "--dry-run", "--create"])
    out = capsys.readouterr().out
    assert out.startswith(f"would upload to {NAME}, made if it is not there:\n") and hub.requests == []
    for path in (*folder.rglob("*.*"), Path("README.md"), Path("example.jpg")):
        assert re.search(rf" B  .*{re.escape(path.name)}\n| KiB  .*{re.escape(path.name)}\n| MiB  ", out), path
    assert "model-index:" in out and "widget:" in out and not (folder / "README.md").exists()
    assert "model that writes text about images, trained by" in out, "what it answers is not known"


def test_a_part_that_only_this_machine_has_is_told(
    hub: Hub, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(folder), "--push", NAME, "--dry-run"])
    assert "others cannot load" not in capsys.readouterr().out
    mine = shutil.copytree(folder, tmp_path / "mine")
    manifest = json.loads((mine / MANIFEST).read_text())
    manifest["architecture"]["language"]["name"] = "/models/opt"
    write_checked(mine / MANIFEST, manifest)
    main([str(mine), "--push", NAME, "--dry-run"])
    out = capsys.readouterr().out
    assert "warning: others cannot load this: its language model is read from /models/opt, a path of this" in out
    (mine / "config.json").write_text("{}")
    (mine / MANIFEST).unlink()
    with pytest.raises(ConfigError, match=rf"is a folder for transformers, .*hf upload {NAME} {mine} uploads it"):
        main([str(mine), "--push", NAME])


def test_what_stands_in_the_way_is_one_line(
    hub: Hub,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub.repositories["other/there"] = {}

    def refused(words: str, *more: str, name: str = NAME, **environment: str) -> None:
        with monkeypatch.context() as patch:
            for variable, value in environment.items():
                patch.setenv(variable, value)
            assert run_command(main, [str(folder), "--push", name, *more]) == 2
        out, err = capsys.readouterr()
        lines = [line for line in err.splitlines() if line]
        assert len(lines) == 1 and re.search(words, lines[0]) and not out, err
        assert "hf_" not in err.replace("hf auth", "")

    refused("there is no repository somebody/my-model, or the token does not see it; pass --create")
    refused("does not know the token; run `hf auth login`", HF_TOKEN="hf_forged")
    refused("may not write to other/there", name="other/there", HF_TOKEN="hf_reads_only")
    refused("may not write to somebody/my-model", "--create", HF_TOKEN="hf_reads_only")
    refused("there is no token for the hub; run `hf auth login`, or set HF_TOKEN", HF_TOKEN="")
    refused("my-model is no name of a repository; write <user>/<model>", name="my-model")
    refused("gone.json: there is no such file", "--results", "gone.json")
    refused(
        "task nocaps is of .*elsewhere.* not of .*export; give one of this",
        "--results",
        str(evaluation_of(tmp_path / "elsewhere", tmp_path / "other.json")),
    )
    write_checked(tmp_path / "training.json", {"val/cider": 1.0})
    refused("holds no tasks; give the results.json of an evaluation", "--results", str(tmp_path / "training.json"))
    refused("manifest.json is no image that can be read", "--example", str(folder / MANIFEST))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    refused(r"http://127.0.0.1:9 cannot be reached \(ConnectError\); check the network")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused("HF_HUB_OFFLINE is set, so nothing can be uploaded")
    assert hub.repositories == {"other/there": {}}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x", "--create"], "--create goes with --push <user>/<model>"),
        (["x", "--results", "r.json"], "--results goes with --push"),
        (["last"], "name the run folder, a checkpoint, or last:<recipe>"),
        (["x", "y", "z"], "unrecognized arguments: z; see export.py --help"),
        ([], "the following arguments are required: run"),
    ],
)
def test_options_that_cannot_be_used(arguments: list[str], words: str, capsys: pytest.CaptureFixture[Any]) -> None:
    assert run_command(main, arguments) == 2
    assert words in capsys.readouterr().err
