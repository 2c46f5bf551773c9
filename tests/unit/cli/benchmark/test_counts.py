"""The counted arithmetic of a step at the paper's size: deterministic, without a clock."""

import pytest

from blip2_train.cli.benchmark.measure import count_flops
from blip2_train.cli.benchmark.options import split_options
from blip2_train.cli.compose import compose


def count(*arguments: str) -> dict[str, dict[str, float]]:
    """GFLOP per sample of each part of each plan, for the paper's ViT-g recipe."""
    options, rest = split_options(["experiment=stage1_vit_g", "device=cpu", *arguments])
    counts = count_flops(compose(rest), options)
    return {
        plan: {part: flops / options.batch_size / 1e9 for part, flops in parts.items()}
        for plan, parts in counts.items()
    }


def test_budget_of_a_step() -> None:
    """Against the plain reference padded to 32, at most 0.70 of the arithmetic; captions of 10 to 16 tokens."""
    counts = count("vision=false", "plans=plain,released,shared", "batch_size=4")
    total = {plan: sum(parts.values()) for plan, parts in counts.items()}
    assert total["released"] == pytest.approx(240.7, abs=1.0)
    assert total["shared"] <= 0.56 * total["released"]
    assert total["shared"] <= 0.48 * total["plain"]
    assert counts["shared"]["backward"] <= 2.0 * sum(v for part, v in counts["shared"].items() if part != "backward")


def test_the_tower_is_counted() -> None:
    counts = count("plans=tower", "batch_size=1")
    assert counts["tower"]["vision"] == pytest.approx(520.7, abs=0.1)
