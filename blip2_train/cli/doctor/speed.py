"""How long a run will take, from a few of its own steps."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from blip2_train.cli.doctor.findings import OK, PROBLEM, SKIPPED, WARNING, Finding, attempt
from blip2_train.cli.doctor.machine import Machine
from blip2_train.cli.meta_model import meta_model
from blip2_train.cli.part_sizes import size_text
from blip2_train.cli.train.run import build
from blip2_train.training.step_clock import StepClock

USUAL_STEPS = 20
LONGEST = 10.0
"""Seconds after which the measurement ends with the step that is being done."""
LARGE = 1_000_000_000
"""Parameters of a model a step of which takes minutes or hours on a CPU."""
SLOW_DATA = 0.2
"""Share of the time spent waiting for data from which more readers are worth while."""
FULL = 0.92
"""Share of a device's memory from which a longer text can be too much."""


def examine_speed(config: DictConfig, machine: Machine, steps: int | None, say: Callable[[str], None]) -> list[Finding]:
    """Train a few steps as the run would, in one process with its share of the batch, and keep nothing of them.

    Args:
        config: The run.
        machine: What it will run on.
        steps: Optimiser steps at most; 0 = none; None = `USUAL_STEPS`, or none of a large model on a CPU.
        say: Told what begins, as it takes its time.
    """
    if steps == 0:
        return [Finding(SKIPPED, "not measured (measure=0)")]
    if machine.present == 0:
        return [Finding(SKIPPED, f"not measured: this machine has no {machine.kind} device")]
    if (
        steps is None
        and machine.kind == "cpu"
        and (size := sum(p.numel() for p in meta_model(config).parameters())) > LARGE
    ):
        return [
            Finding(
                SKIPPED,
                f"not measured: on a CPU, a step of a model of {size / LARGE:.1f} billion parameters takes minutes or "
                "hours; measure=2 does it",
            )
        ]
    steps = USUAL_STEPS if steps is None else steps
    say(f"training up to {steps} steps, until the first that ends after {LONGEST:.0f} seconds …")
    findings: list[Finding] = []
    attempt(findings, lambda: findings.extend(_measure(config, machine, steps)))
    return findings


def alone(config: DictConfig, machine: Machine, steps: int, folder: Path) -> DictConfig:
    """The same run for a few steps, in one process with its share of the batch, writing nothing outside `folder`."""
    plain: Any = OmegaConf.to_container(config)
    share = {"global_batch_size": config.global_batch_size // machine.processes}
    plain |= {**share, "validate_every": None, "monitor": None, "callbacks": {}, "logger": {}}
    plain["paths"]["run_dir"] = str(folder)
    plain["data"] |= {**share, "rejected_list": None}
    one = {"devices": 1, "num_nodes": 1, "strategy": "auto"}
    plain["trainer"] |= {**one, "max_steps": min(steps, config.steps)}
    changed: DictConfig = OmegaConf.create(plain)
    return changed


def _measure(config: DictConfig, machine: Machine, steps: int) -> list[Finding]:
    clock = StepClock(LONGEST)
    on_gpu = machine.kind == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    try:
        with tempfile.TemporaryDirectory(prefix="blip2_doctor_") as folder:
            run = build(alone(config, machine, steps, Path(folder)))
            run.trainer.callbacks.append(clock)  # type: ignore[attr-defined]
            run.trainer.fit(run.module, datamodule=run.data)
    except torch.OutOfMemoryError:
        micro = config.global_batch_size // machine.processes // config.accumulate
        return [
            Finding(
                PROBLEM,
                f"the device's memory does not suffice for micro-batches of {micro}: raise accumulate, shard the model"
                " (trainer=fsdp), or use more devices",
            )
        ]
    findings = _memory(machine, torch.cuda.max_memory_reserved()) if on_gpu else []
    bad = [name for name, value in run.module.latest.items() if not math.isfinite(value)]
    if bad:
        findings.append(
            Finding(
                PROBLEM,
                f"{bad[0]} is no finite number after {run.trainer.global_step} steps; lower optim.lr, or pass "
                "trainer.precision=bf16-mixed or 32-true",
            )
        )
    return [*_time(config, machine, clock, run.trainer.global_step), *findings]


def _time(config: DictConfig, machine: Machine, clock: StepClock, steps: int) -> list[Finding]:
    each = clock.seconds_per_step()
    if each is None:
        return [Finding(SKIPPED, "one step gives no time; pass measure=2 or more")]
    others = f" on one process of {machine.processes}, whose exchange comes on top" if machine.processes > 1 else ""
    waiting = clock.share_waiting()
    findings = [
        Finding(
            OK,
            f"{each:.3g} s per step ({steps} steps measured{others}): {config.steps:,} steps take "
            f"{duration_text(each * config.steps)}; validation and checkpoints come on top",
        )
    ]
    if waiting > SLOW_DATA:
        findings.append(
            Finding(
                WARNING,
                f"{100 * waiting:.0f} % of the time is spent waiting for data; raise data.num_workers (now "
                f"{config.data.get('num_workers', 2)}), or put the data on faster storage",
            )
        )
    return findings


def _memory(machine: Machine, most: int) -> list[Finding]:
    assert machine.memory is not None
    text = f"at most {size_text(most)} of the device's {size_text(machine.memory)} were taken"
    if most > FULL * machine.memory:
        return [Finding(WARNING, f"{text}: a longer text or image can be too much; raise accumulate")]
    return [Finding(OK, text)]


def duration_text(seconds: float) -> str:
    """A duration for a person.

    Example:
        >>> duration_text(90), duration_text(5400), duration_text(200_000)
        ('1.5 minutes', '1.5 hours', '2.3 days')
    """
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
