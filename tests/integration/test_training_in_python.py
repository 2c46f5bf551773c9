"""The page docs/training-in-python.md: its program trains without a configuration, as the recipe does."""

from __future__ import annotations

import csv
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from page_code import write_blocks
from safetensors.torch import load_file

from blip2_train.cli.train.run import train as train_recipe
from blip2_train.config.compose import compose
from blip2_train.pretrained import load_pretrained

WORLD = {"train_scenes": 12, "val_scenes": 4, "test_scenes": 0, "nocaps_scenes": 0}


@pytest.fixture
def program(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The program of the page, as a module."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert write_blocks(root / "docs/training-in-python.md", tmp_path) == ["train_stage1.py"]
    monkeypatch.syspath_prepend(tmp_path)
    return import_module("train_stage1")


def losses(folder: Path) -> list[tuple[str, str]]:
    """Every logged number of a run but its speed."""
    rows = csv.DictReader((folder / "metrics.csv").read_text().splitlines())
    return [(name, value) for row in rows for name, value in sorted(row.items())]


@pytest.mark.slow
def test_it_trains_as_the_recipe_does(program: Any, tmp_path: Path) -> None:
    results = program.main(tmp_path, steps=2, global_batch_size=4, **WORLD)
    run = tmp_path / "python"
    assert results["steps"] == 2 and (run / "results.json").is_file() and (run / "curves.png").is_file()
    load_pretrained(str(run / "export"))

    world = [f"data.prepare.{name}={number}" for name, number in WORLD.items()]
    config = compose(
        [
            "experiment=demo_stage1", "trainer=cpu", "steps=2", "global_batch_size=4", "validate_every=2",
            "optim.warmup_steps=2", "data.validation_samples=null", f"paths.data_dir={tmp_path}/again",
            f"paths.run_dir={tmp_path}/recipe", *world,
        ]
    )  # fmt: skip
    train_recipe(config)
    assert losses(run) == losses(tmp_path / "recipe")
    ours, theirs = (load_file(tmp_path / name / "export/model.safetensors") for name in ("python", "recipe"))
    assert ours.keys() == theirs.keys() and all(bool((ours[name] == theirs[name]).all()) for name in ours)
