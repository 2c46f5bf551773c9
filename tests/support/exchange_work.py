"""What each of two processes does in `test_exchanges`: a short data-parallel run, and a flag that one raises."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from sharding_work import Data, Steps, make_model, make_trainer, micro_batches

from blip2_train import distributed
from blip2_train.training.compiling import CompilePasses
from blip2_train.training.timeout import DataParallelStrategy

CASE = "llama, accumulated"


class GradientStorages(Callback):
    """Notes, after each micro-batch's backward pass, how many storages hold the gradients, and how many there are."""

    def __init__(self) -> None:
        self.counts: list[tuple[int, int]] = []

    def on_after_backward(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        self.counts.append((len({one.untyped_storage().data_ptr() for one in gradients}), len(gradients)))


def run(strategy: Any = "auto", *callbacks: Callback) -> dict[str, Any]:
    """Losses, weights and storages of gradients of a run whose steps have two micro-batches."""
    model, storages = make_model(CASE), GradientStorages()
    module = Steps(model)
    trainer = make_trainer(2, strategy=strategy, callbacks=[storages, *callbacks], limit_val_batches=0)
    trainer.fit(module, datamodule=Data(micro_batches(CASE, model), []))
    return {"losses": module.losses, "weights": module.trained_weights(), "storages": storages.counts}


def flags() -> list[bool]:
    """Of no process, of the second one, of both; without a word over the network of plain numbers."""
    own, distributed._group_for_plain_numbers = distributed._group_for_plain_numbers, _refuse
    try:
        chosen = ((False, False), (False, True), (True, True))
        return [distributed.true_in_any_process(torch.tensor(one[distributed.rank()])) for one in chosen]
    finally:
        distributed._group_for_plain_numbers = own


def _refuse() -> Any:
    raise AssertionError("the group for plain numbers is not needed")


def work() -> dict[str, Any]:
    """Everything that is asked of one of two processes."""
    return {
        "run": run(DataParallelStrategy()),
        "compiled": run(DataParallelStrategy(), CompilePasses("eager")),
        "flags": flags(),
    }
