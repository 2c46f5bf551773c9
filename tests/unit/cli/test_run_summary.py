"""A loss that is not trained is named before a run starts."""

from __future__ import annotations

from blip2_train.cli.run_summary import weightless_line
from blip2_train.objectives.representation import RepresentationObjective


def test_losses_of_weight_0_are_named() -> None:
    assert weightless_line(RepresentationObjective()) == []
    assert weightless_line(RepresentationObjective(itg_weight=0.0)) == [
        "ITG: logged, and not trained (objective.itg_weight=0)"
    ]
