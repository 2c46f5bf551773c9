"""A run with fewer steps than its recipe's keeps the recipe's shape; what fits, or is set, stays."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from warm_process import WarmProcess

from blip2_train.config.compose import compose, recipes
from blip2_train.errors import ConfigError

KEYS = ("validate_every", "optim.warmup_steps", "checkpoint_every")
LOGGER = "blip2_train.config.step_scaling"


def numbers(*overrides: str) -> list[int | None]:
    config = compose(overrides)
    return [OmegaConf.select(config, key) for key in KEYS]


def test_a_shorter_demo_is_scaled_and_reports_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, LOGGER):
        assert numbers("experiment=demo_stage1", "steps=100") == [25, 8, 15]
    (record,) = [record for record in caplog.records if record.name == LOGGER]
    assert record.getMessage() == (
        "steps=100 of the recipe's 660: validate_every=25 (165), optim.warmup_steps=8 (50), checkpoint_every=15 (100) "
        "follow"
    )


@pytest.mark.slow
def test_the_command_reports_it_plainly(root: Path, tmp_path: Path) -> None:
    settings = ["experiment=demo_stage1", "steps=100", f"paths.output_dir={tmp_path}"]
    process = WarmProcess([str(root / "scripts" / "describe.py"), *settings], folder=tmp_path)
    _, errors = process.communicate(timeout=120)
    assert errors.splitlines()[0].startswith("steps=100 of the recipe's 660: "), errors


@pytest.mark.slow
def test_what_fits_stays(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, LOGGER):
        own = numbers("experiment=demo_stage1")
        assert own == [165, 50, 100]
        assert numbers("experiment=demo_stage1", "steps=200") == own
        assert numbers("experiment=demo_stage1", "steps=6600") == own, "scaled down only"
    assert not [record for record in caplog.records if record.name == LOGGER]


@pytest.mark.slow
def test_what_is_set_wins_and_is_checked() -> None:
    assert numbers("experiment=demo_stage1", "steps=100", "optim.warmup_steps=3") == [25, 3, 15]
    assert numbers("experiment=demo_stage1", "steps=100", "validate_every=null") == [None, 50, 100]
    with pytest.raises(ConfigError, match="validate_every 165 is more than steps 100"):
        compose(["experiment=demo_stage1", "steps=100", "validate_every=165"])
    with pytest.raises(ConfigError, match=r"optim.warmup_steps must be between 0 and steps \(100\), got 200"):
        compose(["experiment=demo_stage1", "steps=100", "optim.warmup_steps=200"])


def test_a_trial_of_a_paper_s_recipe_fits_and_validates_ten_times_at_most() -> None:
    assert numbers("experiment=stage1_vit_g", "steps=1000") == [100, 8, 100]
    assert numbers("experiment=stage1_vit_g", "steps=200000") == [2000, 2000, 1000]


def test_validations_of_a_short_run_are_spread_evenly_and_not_close_together() -> None:
    assert [numbers("experiment=demo_stage1", f"steps={steps}")[0] for steps in (50, 24, 11, 4, 1)] == [13, 6, 6, 4, 1]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", recipes())
@pytest.mark.parametrize("steps", [1, *(pytest.param(steps, marks=pytest.mark.slow) for steps in (2, 30))])
def test_every_recipe_runs_with_few_steps(recipe: str, steps: int) -> None:
    validate, warm_up, checkpoint = numbers(f"experiment={recipe}", f"steps={steps}", "init_from=null")
    assert validate is not None and warm_up is not None and checkpoint is not None
    assert 1 <= validate <= steps and 0 <= warm_up <= steps and 1 <= checkpoint <= steps
