"""A run folder is made for one run: the results of another run are refused or removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from blip2_train.errors import ConfigError
from blip2_train.training.run_folder import hold_run_folder, remove_results


def finished_run(folder: Path) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints/step_0000003.ckpt").touch()
    (folder / "export").mkdir()
    (folder / "export/manifest.json").touch()
    (folder / "results.json").touch()
    (folder / "notes.txt").touch()
    return folder


def test_an_empty_folder_is_removed_after_a_refusal(tmp_path: Path) -> None:
    with pytest.raises(ConfigError), hold_run_folder(tmp_path / "run", resumes=False, overwrite=False):
        assert (tmp_path / "run").is_dir()
        raise ConfigError("refused later")
    assert not (tmp_path / "run").exists()


def test_results_of_another_run_are_refused(tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "run")
    expected = r"holds the results\.json, checkpoints, export of another run.*resume_from=.*overwrite=true"
    with pytest.raises(ConfigError, match=expected), hold_run_folder(folder, resumes=False, overwrite=False):
        pass
    for choice in ({"resumes": True, "overwrite": False}, {"resumes": False, "overwrite": True}):
        with hold_run_folder(folder, **choice):
            pass


def test_only_what_runs_write_is_removed(tmp_path: Path) -> None:
    folder = finished_run(tmp_path)
    remove_results(folder)
    assert sorted(path.name for path in folder.rglob("*")) == ["checkpoints", "notes.txt"]
