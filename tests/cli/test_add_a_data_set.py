"""The worked example of docs/add-a-data-set.md: its files are written from the page, tested, and trained on."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from page_code import importable_example, run_page_tests
from shard_files import write_tokenizer
from tiny_run import TINY

from blip2_train.cli.check import main as check
from blip2_train.cli.terminal import run_command
from blip2_train.cli.train.command import main as train
from blip2_train.evaluation.run_metrics import read_results

PAGE = Path(__file__).parents[2] / "docs" / "add-a-data-set.md"
FILES = ["sqlite_images.py", "my_configs/data/sqlite.yaml", "test_sqlite_images.py"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's files in a folder that Python imports from."""
    return importable_example(PAGE, tmp_path, FILES, monkeypatch)


def test_the_tests_of_the_page_pass(folder: Path, tmp_path: Path) -> None:
    run_page_tests("test_sqlite_images", 4, tmp_path)


def test_it_is_checked_and_trained_on_by_the_commands(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    captions = [f"a {colour} {thing}" for colour in ("red", "green", "blue") for thing in ("cat", "dog")] * 3
    import_module("test_sqlite_images").write(folder / "images.sqlite", [*captions, None])
    own = [
        f"--config-dir={folder / 'my_configs'}",
        *(one for one in TINY if not one.startswith("data=")),
        "data=sqlite",
    ]
    own += [f"data.source={folder / 'images.sqlite'}", f"tokenizer={write_tokenizer(folder / 'tokenizer')}"]
    own += [
        "data.num_workers=1",
        "steps=2",
        "validate_every=null",
        f"paths.run_dir={folder / 'run'}",
        "data.max_rejected_share=0.5",
    ]
    assert run_command(check, own) == 0, capsys.readouterr()
    assert "missing text" in capsys.readouterr().out
    assert run_command(train, own) == 0, capsys.readouterr()
    assert read_results(folder / "run")["steps"] == 2
