"""The loader feeding the device: steps of stage 1 on images that are read, decoded and cropped for them."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from benchmark.loader.options import LoaderOptions
from benchmark.loader.photographs import write_photographs
from benchmark.loader.reading import open_data
from plain import no_mark

from blip2_train.data.batches.transforms import FAST
from blip2_train.data.sources.config import SourceConfig
from blip2_train.training.data_module import ImageTextDataModule
from gpu_visit.options import VisitOptions
from gpu_visit.recipes import benchmark_options, recipe, workload
from gpu_visit.results import Add
from gpu_visit.steps import Steps

SIZE = (640, 480)
"""Width and height of the photographs, pixels."""
MOST_WORKERS = 14
WARM_UP = 4
"""Steps before those that count."""


def use_on(data: ImageTextDataModule, device: torch.device) -> None:
    """Let batches come as they do in a run on this device: on a GPU as levels in page-locked memory."""
    data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=device), training=True, global_step=0)  # type: ignore[assignment]


def measure(options: VisitOptions, add: Add) -> None:
    """Train on what the loader gives, and on batches that are there already, by the same step."""
    size = workload(options)
    batch = size.batches[0]
    workers = max(1, min(MOST_WORKERS, len(os.sched_getaffinity(0)) - 1))
    with tempfile.TemporaryDirectory(prefix="blip2_visit_") as folder:
        write_photographs(Path(folder) / "photographs.tar", SIZE, size.photographs)
        source = SourceConfig(path=folder, name="photographs")
        steps = Steps(recipe(size.stage1, batch), benchmark_options(options, batch), add)
        settings = LoaderOptions(images=batch, image_size=int(steps.config.image_size), batch_size=batch)
        data = open_data(source, settings, size.loader_steps + WARM_UP, num_workers=workers, decoder=FAST)
        use_on(data, steps.device)
        batches = iter(data.train_dataloader())
        (plan,) = steps.stage.build_plans(("shared",), steps.model, steps.objective)
        waited, began = 0.0, 0.0
        for step in range(size.loader_steps + WARM_UP):
            if step == WARM_UP:
                waited, began = 0.0, time.perf_counter()
            before = time.perf_counter()
            read = next(batches)
            waited += time.perf_counter() - before
            here = data.on_after_batch_transfer(read.to(steps.device), 0)
            with steps.runner.autocast():
                loss = plan.forward(here, no_mark)
            assert loss is not None
            loss.backward()
            steps.model.zero_grad(set_to_none=True)
            assert torch.isfinite(loss).item(), f"step {step}: loss {loss}"  # waits for the device, as training does
        seconds = time.perf_counter() - began
    add(
        "loader",
        steps=size.loader_steps,
        batch=batch,
        workers=workers,
        **{"samples/s": size.loader_steps * batch / seconds, "share of waiting": waited / seconds},
    )
