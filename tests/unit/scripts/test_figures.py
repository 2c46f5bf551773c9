"""The figures of the documentation: each is drawn by its command, and those that are committed are small."""

from __future__ import annotations

from pathlib import Path

import pytest
from demo_exports import write_exports
from figures import command
from figures.results import SHOWN, draw_results
from PIL import Image

from blip2_train.cli.terminal import run_command
from blip2_train.data.emoji_scenes.world import write_world
from blip2_train.training.run_log import RunCSVLogger, write_results


def test_what_cannot_be_drawn_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["portrait.png"], "portrait.png: there is no such figure; there are masks.png, scene.jpg, results.png"),
        (["results.png", f"paths.output_dir={tmp_path}"], "bash run_scripts/pretrain_stage1.sh"),
    ):
        assert run_command(command.main, arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line
    assert run_command(command.main, ["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in command.FIGURES)


@pytest.mark.slow
def test_results_are_drawn_from_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exports = write_exports(tmp_path / "made")
    for recipe, name, scores in (
        ("demo_stage1", "stage1", {"train/loss_itc": 3.0, "val/loss_itc": 4.0}),
        ("demo_stage2_opt", "opt", {"val/cider": 0.5}),
    ):
        run = tmp_path / "outputs" / recipe / "a run"
        run.mkdir(parents=True)
        Path(exports[name]).rename(run / "export")
        write_results(run, {"steps": 1234.0, "chance/loss_itc": 4.159, "chance/val_loss_itc": 5.545})
        for step in (1, 2):
            RunCSVLogger(str(run)).log_metrics(scores, step=step)
    write_world(tmp_path / "data" / "emoji_scenes", train_scenes=4, val_scenes=SHOWN, test_scenes=2, nocaps_scenes=0)
    monkeypatch.setenv("BLIP2_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(command, "FOLDER", tmp_path)
    figure = draw_results(str(tmp_path / "outputs"))
    assert sum(len(axes.images) > 0 for axes in figure.axes) == 2 * SHOWN, "images with captions, and the strip"
    assert any("after 1,234 steps of stage 2" in text.get_text() for text in figure.texts)
    assert run_command(command.main, ["results.png", f"paths.output_dir={tmp_path / 'outputs'}"]) == 0
    assert Image.open(tmp_path / "results.png").size == (1650, 945)


def test_the_committed_figures_are_small(root: Path) -> None:
    for name in command.FIGURES:
        assert 1_000 < (root / "docs" / "figures" / name).stat().st_size < 500_000, name
