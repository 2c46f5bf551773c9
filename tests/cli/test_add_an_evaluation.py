"""The worked example of docs/add-an-evaluation.md: its files are written from the page, tested, and evaluated with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from demo_exports import write_exports
from page_code import importable_example, run_page_tests

from blip2_train.cli.evaluate import main as evaluate
from blip2_train.cli.terminal import run_command
from blip2_train.data.emoji_scenes.world import write_world

PAGE = Path(__file__).parents[2] / "docs" / "add-an-evaluation.md"
FILES = ["exact_captions.py", "my_configs/evaluation/exact_captions.yaml", "test_exact_captions.py"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's files in a folder that Python imports from."""
    return importable_example(PAGE, tmp_path, FILES, monkeypatch)


def test_the_tests_of_the_page_pass(folder: Path, tmp_path: Path) -> None:
    run_page_tests("test_exact_captions", 3, tmp_path)


def test_the_command_evaluates_with_it(folder: Path, capsys: Any) -> None:
    write_world(folder / "data" / "emoji_scenes", train_scenes=0, val_scenes=0, test_scenes=5, nocaps_scenes=0, seed=5)
    exports = write_exports(folder / "exports")
    arguments = [
        f"--config-dir={folder / 'my_configs'}",
        "evaluation=exact_captions",
        f"checkpoint={exports['opt']}",
        f"paths.run_dir={folder / 'run'}",
        f"tasks.exact_captions.annotations={folder / 'data/emoji_scenes/annotations/captions_test.json'}",
        f"tasks.exact_captions.images={folder / 'data/emoji_scenes/images/test'}",
        "tasks.exact_captions.batch_size=2",
        "device=cpu",
    ]
    assert run_command(evaluate, arguments) == 0, capsys.readouterr()
    printed = capsys.readouterr().out
    assert "exact match" in printed and "words per caption" in printed, printed
    results = json.loads((folder / "run" / "results.json").read_text())["tasks"]["exact_captions"]
    assert set(results["scores"]) == {"exact_match", "words"} and results["examples"] == 5
    assert "exact match (%)" in (folder / "run" / "report.html").read_text()
    predictions = json.loads((folder / "run" / "predictions" / "exact_captions.json").read_text())
    assert len(predictions) == 5 and set(predictions[0]) == {"image_id", "caption"}
