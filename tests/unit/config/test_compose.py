"""Composing as a command does it: nothing is kept from one composition to the next."""

from __future__ import annotations

from pathlib import Path

import composed_once
from hydra import compose as hydra_compose
from pytest import MonkeyPatch

from blip2_train.config.compose import compose

DEMO = ["experiment=demo_stage1", "paths.run_dir=here"]  # otherwise it is named by the second


def test_here_hydra_composes_each_time(monkeypatch: MonkeyPatch) -> None:
    roots = []

    def counted(root: str, overrides: list[str]) -> object:
        roots.append(root)
        return hydra_compose(root, overrides)

    monkeypatch.setattr("hydra.compose", counted)
    assert compose(DEMO) == compose(DEMO)
    assert roots == ["train", "train"]


def test_elsewhere_what_is_kept_equals_what_hydra_composes() -> None:
    real = compose(DEMO)
    composed_once._acting = True
    try:
        kept = [compose(DEMO), compose([*DEMO, "seed=7"]), compose(DEMO)]
    finally:
        composed_once._acting = False
    assert kept[0] == real == kept[2] and kept[1].seed == 7


def test_the_list_of_tests_of_composing_names_what_exists() -> None:
    assert all((composed_once.TESTS / part).exists() for part in composed_once.COMPOSING)
    assert composed_once.is_test_of_composing(Path(__file__))
    assert not composed_once.is_test_of_composing(Path(__file__).parents[1] / "test_layers.py")
