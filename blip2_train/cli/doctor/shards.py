"""Whether the data suffice for the processes and readers of a run."""

from __future__ import annotations

import os

from omegaconf import DictConfig

from blip2_train.cli.doctor.findings import OK, PROBLEM, SKIPPED, WARNING, Finding
from blip2_train.cli.doctor.machine import Machine
from blip2_train.data.sources.holdout import validation_problem
from blip2_train.data.sources.shard_source import ShardSource
from blip2_train.training.data_module import ImageTextDataModule

READERS = 2
"""Readers per process by default."""


def examine_shards(config: DictConfig, data: ImageTextDataModule | None, machine: Machine) -> list[Finding]:
    """Compare shards, samples and processor cores with what the run has of processes and readers.

    Samples are read by their position in a shard, so that any number of shards serves any number of readers, and none
    is lost; with few shards, however, readers wait for each other on storage that serves a file slowly.
    """
    if data is None:
        return [Finding(SKIPPED, "the data cannot be opened")]
    workers = int(config.data.get("num_workers", READERS))
    each = max(workers, 1)
    readers = machine.processes * each
    how_many = f"{machine.processes} processes x {each} reader{'s' * (each != 1)}"
    findings = []
    for part in data.sources:
        name, shards = part.source.name, part.source.files
        if isinstance(part.source, ShardSource):
            if shards < readers:
                findings.append(
                    Finding(
                        WARNING,
                        f"{name} has {shards:,} shard{'s' * (shards != 1)} for {how_many} = {readers:,}: readers share "
                        f"shards, which is slow on network storage; write at least {readers:,} smaller shards, or lower"
                        " data.num_workers",
                    )
                )
            else:
                findings.append(Finding(OK, f"{name}: {shards:,} shards for {how_many} = {readers:,}"))
        if len(part) < config.global_batch_size:
            findings.append(
                Finding(
                    WARNING,
                    f"{name} has {len(part):,} samples, fewer than global_batch_size {config.global_batch_size:,}: a "
                    "batch can hold a sample twice; lower it, or add data",
                )
            )
    return [*findings, *_validation(config, data, machine), *_cores(machine.devices * (workers + 1))]


def _validation(config: DictConfig, data: ImageTextDataModule, machine: Machine) -> list[Finding]:
    samples = data.validation_count
    if config.validate_every is None:
        return [Finding(OK, "no validation")]
    problem = validation_problem(samples, machine.processes)
    if problem is not None:
        return [Finding(PROBLEM, problem)]
    kept = sum(len(part) for part in data.sources)
    origin = f", held out of the training data, which keeps {kept:,}" if config.data.get("validation") is None else ""
    return [Finding(OK, f"validation: {samples:,} samples for {machine.processes} processes{origin}")]


def _cores(busy: int) -> list[Finding]:
    """Processes and readers of a node beside its cores; on one node, this machine's."""
    cores = os.cpu_count() or 1
    if busy <= 2 * cores:
        return []
    return [
        Finding(
            WARNING,
            f"{busy} processes and readers share the {cores} cores of this machine; lower data.num_workers, unless the "
            "run has a larger one",
        )
    ]
