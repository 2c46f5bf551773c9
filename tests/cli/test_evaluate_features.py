"""Evaluations from stored features give what evaluations of the images give."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from demo_exports import write_exports

from blip2_train.cli.evaluate import main
from blip2_train.cli.features import storing
from blip2_train.cli.features.command import main as features_command
from blip2_train.cli.terminal import run_command
from blip2_train.data.emoji_scenes.world import write_world

TASKS = ("demo_caption", "demo_vqa", "demo_retrieval")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world of a few scenes, untrained models on one tower, and its features of the test scenes."""
    folder = tmp_path_factory.mktemp("evaluated")
    write_world(folder / "data" / "emoji_scenes", train_scenes=0, val_scenes=0, test_scenes=9, nocaps_scenes=3, seed=5)
    exports = write_exports(folder / "exports")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storing, "cores", lambda: 1)  # as threads would round otherwise
        named = [f"evaluation=[{','.join(TASKS)}]", f"checkpoint={exports['stage1']}"]
        features_command([*named, *paths_of(folder), "device=cpu", f"output={folder / 'features'}", "bits=32"])
    return folder


def paths_of(folder: Path) -> list[str]:
    return [f"paths.data_dir={folder / 'data'}", *(f"tasks.{task}.prepare=null" for task in TASKS)]


def arguments(folder: Path, *more: str) -> list[str]:
    exports = folder / "exports"
    return [
        f"evaluation=[{','.join(TASKS)}]",
        f"checkpoint={exports / 'opt/export'}",
        f"checkpoints.retrieval={exports / 'stage1'}",
        *paths_of(folder),
        "tasks.demo_vqa.limit=18",
        "tasks.demo_retrieval.shortlist=5",
        "tasks.demo_caption.metrics=[bleu_4,cider]",
        "examples=3",
        "device=cpu",
        *more,
    ]


def test_scores_and_predictions_are_those_of_the_images(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = json.loads((folder / "features" / "index.json").read_text())
    assert index["images"] == index["crops"] == 9 and index["settings"]["crops"] == 0
    main(arguments(folder, f"paths.run_dir={folder / 'images'}"))
    images = folder / "data/emoji_scenes/images"
    main(arguments(folder, f"paths.run_dir={folder / 'stored'}", f"features={folder / 'features'}"))
    results = [json.loads((folder / run / "results.json").read_text())["tasks"] for run in ("images", "stored")]
    for task in TASKS:
        one, other = ((folder / run / "predictions" / f"{task}.json").read_text() for run in ("images", "stored"))
        assert one == other and results[0][task]["scores"] == results[1][task]["scores"]
        assert results[1][task]["decoding"]["features"].startswith("0 crops, hash ")
        assert "features" not in results[0][task]["decoding"]
    page = (folder / "stored" / "report.html").read_text()
    assert page.count("data:image/") >= 2
    assert run_command(main, arguments(folder, f"paths.run_dir={folder / 'stored'}")) == 2  # they were made otherwise
    assert "features" in capsys.readouterr().err
    assert images.is_dir()


def test_an_image_without_features_is_named(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(folder / "data", tmp_path / "data")
    changed = sorted((tmp_path / "data/emoji_scenes/images/test").iterdir())[0]
    changed.write_bytes(changed.read_bytes() + b"\0")
    more = (
        f"features={folder / 'features'}",
        f"paths.data_dir={tmp_path / 'data'}",
        f"paths.run_dir={tmp_path / 'run'}",
    )
    assert run_command(main, arguments(folder, *more)) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert f"{changed}: " in line and "has no features of this image: it changed" in line


def test_features_of_another_transform_and_several_towers_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = (f"features={folder / 'features'}", "dtype=bfloat16", f"paths.run_dir={tmp_path / 'run'}")
    assert run_command(main, arguments(folder, *more)) == 2
    assert "its dtype is float32, that of this model bfloat16" in capsys.readouterr().err
    eight = ["vision_quantization=int8", *more[::2]]
    assert run_command(main, arguments(folder, *eight)) == 2
    assert "features does not go with vision_quantization=int8" in capsys.readouterr().err
    stored = [*arguments(folder), f"output={tmp_path / 'features'}"]
    assert run_command(features_command, [*stored, "vision_quantization=int8"]) == 2
    assert "features.py does not go with vision_quantization=int8" in capsys.readouterr().err
    assert run_command(features_command, stored) == 2
    assert "features are of one tower" in capsys.readouterr().err
