"""The counted arithmetic of a step at the paper's size: deterministic, without a clock."""

import pytest
from benchmark.counting import count_flops
from benchmark.options import split_options

from blip2_train.config.compose import compose


def count(*arguments: str, recipe: str = "stage1_vit_g") -> dict[str, dict[str, float]]:
    """GFLOP per sample of each part of each plan, for the paper's ViT-g recipe unless another is named."""
    options, rest = split_options([f"experiment={recipe}", "init_from=null", "device=cpu", *arguments])
    counts = count_flops(compose(rest), options)
    return {
        plan: {part: flops / options.batch_size / 1e9 for part, flops in parts.items()}
        for plan, parts in counts.items()
    }


@pytest.mark.slow
def test_budget_of_a_step() -> None:
    """Against the plain reference padded to 32, at most 0.52 of the arithmetic; captions of 10 to 16 tokens."""
    counts = count("vision=false", "plans=plain,released,shared", "batch_size=4")
    total = {plan: sum(parts.values()) for plan, parts in counts.items()}
    assert total["released"] == pytest.approx(240.7, abs=1.0)
    assert total["shared"] <= 0.52 * total["released"]
    assert total["shared"] <= 0.45 * total["plain"]
    assert counts["shared"]["backward"] <= 2.0 * sum(v for part, v in counts["shared"].items() if part != "backward")


@pytest.mark.slow
def test_the_tower_is_counted() -> None:
    counts = count("plans=tower", "batch_size=1")
    assert counts["tower"]["vision"] == pytest.approx(520.7, abs=0.1)


@pytest.mark.slow
def test_budget_of_stage_2() -> None:
    """OPT-2.7B after 32 queries and 32 tokens, of which 31 have a label; without the tower."""
    options = ("vision=false", "plans=huggingface,all_positions,labelled", "batch_size=1", "tokens=32-32")
    theirs, everywhere, ours = count(*options, recipe="stage2_vit_g_opt_2.7b").values()
    assert theirs["language_model"] + theirs["head"] == pytest.approx(339.9, abs=0.2)
    assert everywhere["language_model"] == ours["language_model"] == theirs["language_model"]
    assert everywhere["qformer"] + everywhere["backward"] < theirs["qformer"] + theirs["backward"]
    both_ways = 2 * 2 * 2560 * 50272 / 1e9  # of the head, per position
    assert ours["head"] == pytest.approx(31 * both_ways, rel=1e-3)
    assert everywhere["head"] == pytest.approx(63 * both_ways / 2, rel=1e-3)
    assert sum(everywhere.values()) - sum(ours.values()) == pytest.approx(32 * both_ways, rel=1e-2)
