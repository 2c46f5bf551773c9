"""The memory of each part of a model beside what a device has."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig
from torch import nn

from blip2_train.cli.doctor.findings import OK, PROBLEM, SKIPPED, WARNING, Finding, attempt
from blip2_train.cli.doctor.machine import Machine
from blip2_train.cli.run_report import size_text
from blip2_train.models.adapted_layers import is_adapter
from blip2_train.training.sharding import blocks_to_shard

COMFORTABLE = 0.8
"""Share of a device's memory above which little is left for activations."""


@dataclass(frozen=True, kw_only=True)
class PartMemory:
    """Bytes of one part of a model in each process."""

    name: str
    weights: int
    training: int
    """Gradients and AdamW's two moments; data parallelism exchanges gradients where they lie."""


def examine_memory(config: DictConfig, model: nn.Module | None, machine: Machine) -> list[Finding]:
    """Weights, gradients and optimiser of each part, and all of them beside the device's memory."""
    if model is None:
        return [Finding(SKIPPED, "the model cannot be built")]
    findings: list[Finding] = []
    parts = attempt(findings, lambda: part_memory(model, machine))
    if parts is None:
        return findings
    for part in parts:
        trains = f", training {size_text(part.training)}" if part.training else ", frozen"
        findings.append(Finding(OK, f"{part.name}: weights {size_text(part.weights)}{trains}"))
    needed = sum(part.weights + part.training for part in parts)
    where = "each process"
    if machine.kind == "cpu" and machine.devices > 1:
        needed *= machine.devices
        where = f"the {machine.devices} processes of a machine"
    return [_verdict(needed, where, config, machine), *findings]


def part_memory(model: nn.Module, machine: Machine) -> list[PartMemory]:
    """What each direct part takes in one process.

    Where the model is sharded among processes, the blocks that are split and what trains count by their share.
    """
    split = {id(p) for block in blocks_to_shard(model) for p in block.parameters()} if machine.sharded else set()
    weights: dict[str, float] = {}
    training: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        part, size = name.split(".")[0], parameter.numel() * parameter.element_size()
        trains = parameter.requires_grad
        shared = (
            machine.sharded and not is_adapter(name) and (id(parameter) in split or (trains and parameter.ndim > 0))
        )
        share = size / machine.processes if shared else size
        weights[part] = weights.get(part, 0.0) + share
        training[part] = training.get(part, 0.0) + trains * 3 * share
    return [PartMemory(name=part, weights=round(weights[part]), training=round(training[part])) for part in weights]


def _verdict(needed: int, where: str, config: DictConfig, machine: Machine) -> Finding:
    takes = f"weights, gradients and AdamW take {size_text(needed)} in {where}, activations come on top"
    if machine.memory is None:
        return Finding(WARNING, f"{takes}; what a device has is not known: give device_memory=<GiB>")
    beside = f"{takes}; there are {size_text(machine.memory)}"
    if needed > machine.memory:
        return Finding(PROBLEM, f"{beside}: {_fix(config, machine)}")
    if needed > COMFORTABLE * machine.memory:
        return Finding(WARNING, f"{beside}, so little is left: raise accumulate, or {_fix(config, machine)}")
    return Finding(OK, beside)


def _fix(config: DictConfig, machine: Machine) -> str:
    language = config.model.get("language")
    ways = []
    if machine.kind != "cpu" and not machine.sharded:
        ways.append("shard the model (trainer=fsdp)")
    if language is not None and language.get("quantization", "none") == "none":
        ways.append("quantise the language model (model.language.quantization=int8)")
    ways.append(
        "choose a smaller model or a larger device" if machine.kind != "cpu" else "use a machine with more memory"
    )
    return ", or ".join(ways)
