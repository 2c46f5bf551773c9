"""The processes that a run needs, and the devices that are on this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class
from omegaconf import DictConfig

from blip2_train.cli.doctor.findings import OK, WARNING, Finding, attempt
from blip2_train.cli.part_sizes import size_text
from blip2_train.data.stream.batch_sampler import BatchShape
from blip2_train.training.sharding import ShardedStrategy


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a run will run on."""

    kind: str
    """`cpu`, `cuda` or `mps`."""
    present: int
    """Such devices on this machine; a CPU counts as one."""
    devices: int
    """Processes per node."""
    nodes: int
    memory: int | None
    """Bytes of one device, on a CPU of all processes of a node together; None = not known."""
    sharded: bool
    """Whether the model is sharded among the processes."""

    @property
    def processes(self) -> int:
        """Over all nodes."""
        return self.devices * self.nodes


def find_machine(trainer: DictConfig, device_memory: float | None) -> Machine:
    """The machine of a trainer's settings.

    Args:
        trainer: With `accelerator`, `devices`, `num_nodes` and `strategy`, as Lightning takes them.
        device_memory: GiB of one device, in place of that of the device here.
    """
    kind = _kind(str(trainer.accelerator))
    present = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}.get(kind, 1)
    memory = None if device_memory is None else int(device_memory * 2**30)
    if memory is None and present:
        memory = torch.cuda.get_device_properties(0).total_memory if kind == "cuda" else host_memory()
    strategy = trainer.strategy
    sharded = isinstance(strategy, DictConfig) and issubclass(get_class(strategy["_target_"]), ShardedStrategy)
    return Machine(
        kind=kind,
        present=present,
        devices=_count(trainer.devices, present),
        nodes=int(trainer.num_nodes),
        memory=memory,
        sharded=sharded,
    )


def examine_devices(config: DictConfig, machine: Machine) -> list[Finding]:
    """Whether the devices are here, and whether the batch can be cut into equal parts for them."""
    named = f"{machine.processes} process{'es' * (machine.processes > 1)} on {machine.kind}"
    memory = "memory not known" if machine.memory is None else size_text(machine.memory)
    findings = [Finding(OK, f"{named}; {memory}{' a device' * (machine.kind != 'cpu')}")]
    if machine.kind != "cpu" and machine.present < machine.devices:
        unknown = "" if machine.memory else " give device_memory=<GiB> to compare memory with;"
        findings.append(
            Finding(
                WARNING,
                f"trainer.devices={config.trainer.devices}, but this machine has {machine.present or 'no'} "
                f"{machine.kind} device{'s' * (machine.present > 1)}: what one process can show is shown on one;"
                f"{unknown} examine again on the machine that will train",
            )
        )
    shape = attempt(
        findings,
        lambda: BatchShape(
            global_batch_size=config.global_batch_size, world_size=machine.processes, accumulate=config.accumulate
        ),
    )
    if shape is not None:
        findings.append(
            Finding(
                OK,
                f"{config.global_batch_size:,} samples a step = {machine.processes} processes x {config.accumulate} "
                f"micro-batches x {shape.micro_batch_size}",
            )
        )
    return findings


def host_memory() -> int:
    """Bytes of main memory that can be had now: what is available, at most what a container allows."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    facts = Path("/proc/meminfo")
    if facts.is_file():
        lines = dict(line.split(":", 1) for line in facts.read_text(encoding="ascii").splitlines())
        limits += [int(lines[key].split()[0]) * 1024 for key in ("MemAvailable",) if key in lines]
    container = Path("/sys/fs/cgroup/memory.max")
    if container.is_file() and (text := container.read_text(encoding="ascii").strip()).isdecimal():
        limits.append(int(text))
    return min(limits)


def _kind(accelerator: str) -> str:
    """The device that Lightning would take here; a GPU is a CUDA device unless only Apple's is here."""
    mps, cuda = torch.backends.mps.is_available(), torch.cuda.is_available()
    if accelerator == "auto":
        return "cuda" if cuda else "mps" if mps else "cpu"
    if accelerator == "gpu":
        return "mps" if mps and not cuda else "cuda"
    return accelerator


def _count(devices: Any, present: int) -> int:
    """Devices that a setting of Lightning's stands for: a number, a list, `0,1`, `auto` or -1 (all)."""
    text = str(devices)
    if text in ("auto", "-1"):
        return max(present, 1)
    if text.isdecimal():
        return max(int(text), 1)
    return max(len([part for part in text.strip("[]").split(",") if part.strip()]), 1)
