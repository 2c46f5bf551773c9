"""Bytes that a process receives in a step for the sake of negatives of other processes, beside those of its own rows.

Counted where torch hands tensors to its backend, in steps of real processes on the CPU: features of ViT-g in 16 bits,
a small Q-Former. The other side is a gather of the features of the whole global batch.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
from traffic import Traffic, for_negatives

from benchmark.comparisons.comparison import Comparison
from benchmark.workload import GivenPatches
from blip2_train.models.configs import QFormerConfig, VisionConfig
from blip2_train.models.image_text import ImageTextModel
from blip2_train.objectives.representation import RepresentationObjective
from blip2_train.types import ImageTextBatch

WORLDS = (2, 3, 4)
ROWS, PATCHES, WIDTH, TOKENS = 16, 257, 1408, 32
"""Samples of each process, and the shape of what belongs to one."""


def compare() -> list[Comparison]:
    """The process and number of processes with the most."""
    row = PATCHES * WIDTH * 2 / 2**20
    model = _model()
    received = {world: max(_received(world, model)) for world in WORLDS}
    world = max(received, key=received.__getitem__)
    ours, gathered = received[world] / 2**20, (world - 1) * ROWS * row
    return [
        Comparison(
            name="exchange_rows",
            what=f"bytes received for negatives, per process and step ({world} processes)",
            ours=f"{ours:.1f} MiB",
            other=f"its own {ROWS} rows: {ROWS * row:.1f} MiB (all rows gathered: {gathered:.1f} MiB)",
            ratio=ours / (ROWS * row),
            target=1.1,
        )
    ]


def _received(world: int, model: ImageTextModel) -> list[float]:
    """Bytes that each of so many processes receives."""
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("fork")
        processes = [context.Process(target=_step, args=(Path(folder), rank, world, model)) for rank in range(world)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        return [float((Path(folder) / f"{rank}.txt").read_text("utf-8")) for rank in range(world)]


def _step(folder: Path, rank: int, world: int, model: ImageTextModel) -> None:
    """A step of one process; only what travels for the sake of negatives is counted."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    batch = _batch(torch.Generator().manual_seed(rank))
    with Traffic() as traffic:
        RepresentationObjective()(model, batch, torch.Generator().manual_seed(0)).total.backward()
    (folder / f"{rank}.txt").write_text(str(for_negatives(traffic.received)), encoding="utf-8")
    dist.destroy_process_group()


def _model() -> ImageTextModel:
    """A small Q-Former on features of ViT-g's shape, which the batches hold."""
    torch.manual_seed(0)
    sizes = {"patch_size": 112, "embed_dim": WIDTH, "depth": 2, "num_heads": 16}
    vision = VisionConfig(name="vit_tiny_patch16_224", weights="random", image_size=224, overrides=sizes)
    qformer = QFormerConfig(weights="random", hidden_size=32, num_layers=2, num_heads=2, intermediate_size=64)
    model = ImageTextModel(vision, qformer)
    model.vision_model = GivenPatches(WIDTH, PATCHES)  # type: ignore[assignment]
    return model


def _batch(generator: torch.Generator) -> ImageTextBatch:
    features = torch.randn(ROWS, PATCHES, WIDTH, generator=generator) + torch.randn(ROWS, 1, WIDTH, generator=generator)
    return ImageTextBatch(
        pixel_values=features.half(),
        input_ids=torch.randint(1, 30_000, (ROWS, TOKENS), generator=generator),
        attention_mask=torch.ones(ROWS, TOKENS, dtype=torch.bool),
        image_ids=torch.arange(ROWS),
        longest_text=TOKENS,
        sample_ids=("",) * ROWS,
        rejected=(),
    )
