"""Whether the batches that readers hand over fit into shared memory."""

from __future__ import annotations

import shutil

from omegaconf import DictConfig

from blip2_train.cli.doctor.findings import OK, PROBLEM, SKIPPED, WARNING, Finding
from blip2_train.cli.doctor.machine import Machine
from blip2_train.cli.doctor.shards import READERS
from blip2_train.cli.part_sizes import size_text
from blip2_train.data.stream.batch_sampler import BatchShape
from blip2_train.data.stream.loader import PREFETCHED
from blip2_train.errors import ConfigError
from blip2_train.training.data_module import ImageTextDataModule

FOLDER = "/dev/shm"
"""Where Linux keeps it."""


def examine_shared_memory(config: DictConfig, data: ImageTextDataModule | None, machine: Machine) -> list[Finding]:
    """Compare the batches that wait in all processes of this machine with the shared memory that is free.

    Args:
        config: Of the run.
        data: The opened data, with batches of `SHOWN` samples and no readers.
        machine: Its processes share the memory.
    """
    workers = int(config.data.get("num_workers", READERS))
    if not workers:
        return [Finding(OK, "not used: data.num_workers=0 reads without readers")]
    if data is None:
        return [Finding(SKIPPED, "the data cannot be opened")]
    try:
        shape = BatchShape(
            global_batch_size=config.global_batch_size, world_size=machine.processes, accumulate=config.accumulate
        )
        free = shutil.disk_usage(FOLDER).free
    except ConfigError:
        return [Finding(SKIPPED, "the batch cannot be divided among the processes")]
    except OSError:
        return [Finding(OK, f"this system has no {FOLDER}")]
    image = data.image_bytes.waiting
    waiting = machine.devices * workers * PREFETCHED * shape.micro_batch_size * image
    readers = f"{machine.devices} process{'es' * (machine.devices > 1)} x {workers} readers x {PREFETCHED} batches"
    beside = f"{readers} take up to {size_text(waiting)} of {FOLDER}, which has {size_text(free)} free"
    fix = (
        "give the container more (docker run --shm-size, a volume in memory with Kubernetes), or lower data.num_workers"
    )
    if waiting > free:
        return [Finding(PROBLEM, f"{beside}: {fix}")]
    if 2 * waiting > free:
        return [Finding(WARNING, f"{beside}, so other programs may fill it: {fix}")]
    return [Finding(OK, beside)]
