"""A module that contrasts whole steps needs their micro-batches together, and moves those that were read ahead."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import VOCABULARY, image_text_batch, image_text_model

from blip2_train.data.batches.normalisation import Normalisation
from blip2_train.errors import ConfigError
from blip2_train.objectives.representation import RepresentationObjective
from blip2_train.optim.config import OptimizerConfig
from blip2_train.training.representation import RepresentationModule


def make_module(monkeypatch: pytest.MonkeyPatch, data: Any = None) -> RepresentationModule:
    """One whose steps have two micro-batches, which are contrasted together."""
    numbers: dict[str, Any] = {"lr": 1e-3, "min_lr": 0.0, "warmup_lr": 0.0, "warmup_steps": 0, "weight_decay": 0.0}
    collator: Any = SimpleNamespace(tokenizer=range(VOCABULARY), max_text_length=12)
    optimizer = OptimizerConfig(**numbers, steps=2, betas=(0.9, 0.98))
    objective = RepresentationObjective(contrast="batch")
    module = RepresentationModule(image_text_model(), objective, optimizer, collator, seed=0)
    trainer = SimpleNamespace(accumulate_grad_batches=2, global_step=0, datamodule=data)
    monkeypatch.setattr(module, "_trainer", trainer)
    return module


def test_a_loader_that_gives_one_micro_batch_at_a_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module = make_module(monkeypatch)
    with pytest.raises(ConfigError, match=r"needs the 2 micro-batches .* whole_steps of the data module"):
        module.compute_losses(image_text_batch(2))
    assert (module.contrasted(8, 4), module.contrasts_whole_steps) == (8, True)


def test_what_was_read_ahead_is_normalised_as_what_lightning_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    normalise = Normalisation([0.5] * 3, [0.2] * 3)
    data = SimpleNamespace(on_after_batch_transfer=lambda batch, _: normalise.batch(batch))
    first, second = (image_text_batch(2, seed=seed) for seed in range(2))
    second.pixel_values = (second.pixel_values.clamp(-2, 2) * 60 + 128).byte()
    as_levels, as_values = (
        make_module(monkeypatch, data).compute_losses(replace(first, following=(one,)))
        for one in (second, normalise.batch(second))
    )
    assert torch.equal(as_levels.total, as_values.total)
