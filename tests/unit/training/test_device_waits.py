"""Where a training step waits for its device: at the check for finite numbers, once, and at no copy.

Counted without a device: a wait is a number that Python reads from a tensor (`item`), and copies are those to a GPU on
which tensors without values say they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from sharding_work import Data
from tiny import image_text_batch, image_text_model
from tiny_generation import generation_batch, generative_model
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from blip2_train.objectives.generation import GenerationObjective
from blip2_train.objectives.representation import RepresentationObjective
from blip2_train.optim.config import OptimizerConfig
from blip2_train.training.module import TrainingModule
from blip2_train.training.non_finite import SkipNonFinite

STEPS, MICRO_BATCHES = 3, 2
MASKS_OF_TRANSFORMERS = 2
"""Waits in each pass of a language model, outside of this project: whether its mask has any padding."""


class Watch(TorchDispatchMode):
    """Counts numbers read by Python, and keeps the shapes of what a GPU is given by a copy that waits."""

    def __init__(self) -> None:
        super().__init__()
        self.reads, self.waiting_copies, self.copies = 0, list[tuple[int, ...]](), 0
        self._pinned: list[Tensor] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function._schema.name
        if name == "aten::_pin_memory":  # which tensors without values do not know
            self._pinned.append(args[0])
            return args[0]
        result = function(*args, **(kwargs or {}))
        self.reads += name == "aten::_local_scalar_dense"
        source = args[-1] if name == "aten::copy_" else args[0] if name == "aten::_to_copy" else result
        if isinstance(result, Tensor) and source.device.type == "cpu" and result.device.type == "cuda":
            self.copies += 1
            if not any(source is one for one in self._pinned):
                self.waiting_copies.append(tuple(source.shape))
        return result


class Reads(Callback):
    """Numbers that Python reads in each micro-batch, from its start to the end of the optimiser step."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self.watch = Watch()
        self.watch.__enter__()

    def on_train_batch_end(self, *_: Any) -> None:
        self.watch.__exit__(None, None, None)
        self.counts.append(self.watch.reads)


def make_model(stage: int) -> Any:
    return image_text_model() if stage == 1 else generative_model()


def module_and_batch(stage: int) -> tuple[TrainingModule, Any]:
    objective: Any = RepresentationObjective() if stage == 1 else GenerationObjective()
    model = make_model(stage)
    batch: Any = image_text_batch() if stage == 1 else generation_batch(model)
    optimizer = OptimizerConfig(
        lr=1e-3,
        min_lr=1e-3,
        warmup_lr=1e-3,
        warmup_steps=0,
        steps=STEPS,
        weight_decay=0.05,
        betas=(0.9, 0.98),
        clip_norm=1.0,
    )
    return TrainingModule(model, objective, optimizer, objective, seed=0, log_every=100), batch


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2])
def test_a_step_waits_for_its_device_once(stage: int, tmp_path: Path) -> None:
    module, batch = module_and_batch(stage)
    reads = Reads()
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=STEPS, accumulate_grad_batches=MICRO_BATCHES, logger=False,
        callbacks=[reads, SkipNonFinite(str(tmp_path))], enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, datamodule=Data([batch] * (STEPS * MICRO_BATCHES), []))
    assert len(reads.counts) == STEPS * MICRO_BATCHES
    masks = 0 if stage == 1 else MASKS_OF_TRANSFORMERS
    second = reads.counts[2:4]
    assert second == [masks, masks + 1], "the first step and the last are logged, the one between them is not"


@pytest.mark.slow
@pytest.mark.skipif(torch.version.cuda is None, reason="needs a torch that knows CUDA, but no GPU")
@pytest.mark.parametrize("stage", [1, 2])
def test_a_step_copies_nothing_to_its_device_but_pinned_numbers(stage: int) -> None:
    """Those of hard negatives, in stage 1."""
    with torch.device("meta"):
        empty = make_model(stage)
    module, batch = module_and_batch(stage)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model, batch = empty.to_empty(device="cuda"), batch.to("cuda")
        with Watch() as watch:
            assert module.objective(model, batch, torch.Generator().manual_seed(0)).total.is_cuda
    assert watch.waiting_copies == [] and watch.copies == (1 if stage == 1 else 0)
