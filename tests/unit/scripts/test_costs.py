"""What recipes take of a GPU: the page's figures follow from each other, and the command computes them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from costs.command import HEADING, PEAKS, cost_of, main

from blip2_train.cli.terminal import run_command
from blip2_train.config.compose import compose, recipes

PAGE = (Path(__file__).parents[3] / "docs" / "costs.md").read_text("utf-8")
ROWS = {
    cells[0].strip("`"): cells
    for line in re.findall(r"^\| (`\w[\w.]*` \|.*) \|$", PAGE, re.M)
    for cells in [line.split(" | ")]
}
UTILISATION = 0.35


def number(cell: str) -> float:
    return float(cell.replace(",", ""))


def test_the_page_has_the_heading_of_the_command() -> None:
    assert HEADING.format(cards="40 / 80") in PAGE and "35 % of the GPU's peak" in PAGE


def test_every_recipe_of_the_paper_has_a_row() -> None:
    paper = [name for name in recipes() if name.startswith(("stage1_", "stage2_", "caption_", "vqa_", "retrieval_"))]
    assert sorted(ROWS) == sorted(paper)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ROWS)
def test_hours_follow_from_steps_batch_and_operations(recipe: str) -> None:
    config = compose([f"experiment={recipe}", "init_from=null"])
    operations = config.steps * config.global_batch_size * number(ROWS[recipe][1]) * 1e9
    for peak, hours in zip(PEAKS.values(), ROWS[recipe][4:], strict=True):
        assert number(hours) == pytest.approx(operations / (peak * UTILISATION) / 3600, rel=0.005, abs=0.6)


@pytest.mark.slow
def test_a_recipe_is_computed() -> None:
    """The demo's: a step of it is quick to count."""
    cost = cost_of("demo_stage1", [], (40, 80))
    assert cost.samples == 660 * 64 and cost.operations > 1e7
    assert 0 < cost.state < 2**26 and cost.micro_batches[0] < cost.micro_batches[1]
    assert cost.row(UTILISATION).startswith("| `demo_stage1` | 1 | 0.0 GiB | ")


@pytest.mark.slow
def test_the_page_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(main, ["recipes=stage1_vit_l"]) == 0
    row = capsys.readouterr().out.splitlines()[-1]
    assert row in PAGE


@pytest.mark.slow
def test_settings_of_a_recipe_change_what_it_costs() -> None:
    plain, adapted = (cost_of("demo_stage2_opt", settings, (24,)) for settings in ([], ["steps=7", "peft=lora"]))
    assert adapted.samples == 7 * plain.samples / 3200 and len(adapted.micro_batches) == 1
    assert adapted.state > plain.state and adapted.micro_batches < plain.micro_batches


def test_a_share_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(main, ["utilisation=35"]) == 2
    assert "utilisation is a share of the peak" in capsys.readouterr().err
    assert run_command(main, ["cards=0"]) == 2
    assert "cards are GPUs by the GB on their names" in capsys.readouterr().err
