"""The memory of each part of a model, and of a step, beside what a device has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from omegaconf import DictConfig
from torch import nn

from blip2_train.cli.doctor.findings import OK, PROBLEM, SKIPPED, WARNING, Finding, attempt
from blip2_train.cli.doctor.machine import Machine
from blip2_train.cli.memory_table import largest_line
from blip2_train.cli.part_sizes import size_text
from blip2_train.config.compose import instantiate
from blip2_train.models.adapted_layers import is_adapter
from blip2_train.models.blip2 import Blip2Model
from blip2_train.system.error_reasons import reason_of
from blip2_train.training.planned_memory import PlannedStep, plan_step, usable_bytes
from blip2_train.training.sharding import blocks_to_shard

COMFORTABLE = 0.8
"""Share of a device's memory above which little is left for activations, where these cannot be counted."""
SHORT_TEXT = 8
"""Tokens that texts have at least, with their first and last."""
Planner = Callable[[int, bool], PlannedStep]
"""What a step takes, by the tokens of its texts and whether a GPU computes it."""


@dataclass(frozen=True, kw_only=True)
class PartMemory:
    """Bytes of one part of a model in each process."""

    name: str
    weights: int
    training: int
    """Gradients and AdamW's two moments; data parallelism exchanges gradients where they lie."""


def examine_memory(
    config: DictConfig, model: Blip2Model | None, machine: Machine, planner: Planner | None = None
) -> list[Finding]:
    """Weights, gradients and optimiser of each part, and all of them with a step's activations beside the memory.

    Args:
        config: The run.
        model: Its model, on the meta device; None if it could not be built.
        machine: What it runs on.
        planner: From `step_planner`, for several machines; None = one for this.
    """
    if model is None:
        return [Finding(SKIPPED, "the model cannot be built")]
    findings: list[Finding] = []
    parts = attempt(findings, lambda: part_memory(model, machine))
    if parts is None:
        return findings
    for part in parts:
        trains = f", training {size_text(part.training)}" if part.training else ", frozen"
        findings.append(Finding(OK, f"{part.name}: weights {size_text(part.weights)}{trains}"))
    state = sum(part.weights + part.training for part in parts)
    share = config.global_batch_size // machine.processes
    first = _verdict(state, config, machine)
    if first.level == PROBLEM:
        return [first, *findings]
    try:
        planner = planner or step_planner(config, model)
        step = planner(config.max_text_length, machine.kind != "cpu")
    except Exception as error:  # a model or objective of one's own may do what tensors without values cannot
        findings.append(Finding(SKIPPED, f"activations cannot be counted: {reason_of(error)}"))
        return [first, *findings]
    each = f"{size_text(round(step.most_per_sample))} for each sample of a micro-batch{_of_whole_steps(step, share)}"
    fixed = f"{size_text(round(step.most_fixed))} and " if step.most_fixed > 0 else ""  # of small models below 0
    findings.append(Finding(OK, f"activations, texts of {config.max_text_length} tokens: {fixed}{each}"))
    if machine.kind == "cuda":
        findings.append(Finding(OK, largest_line(step, state, share)))
    if machine.memory is not None:
        first = _with_step(config, machine, state, step, planner) or first
    return [first, *findings]


def step_planner(config: DictConfig, model: Blip2Model) -> Planner:
    """Counts a step of a run, each length of texts once."""

    @cache
    def plan(length: int, on_gpu: bool) -> PlannedStep:
        return plan_step(model, instantiate(config.objective), length, str(config.trainer.precision), on_gpu=on_gpu)

    return plan


def _of_whole_steps(step: PlannedStep, share: int) -> str:
    """What contrast over all micro-batches of a step adds to a sentence; nothing where each is contrasted by itself."""
    if not step.most_per_step_sample:
        return ""
    each = size_text(round(step.most_per_step_sample))
    return f", and {each} for each of the {share:,} samples of a step in a process, which are contrasted together"


def _with_step(config: DictConfig, machine: Machine, state: int, step: PlannedStep, planner: Planner) -> Finding | None:
    """The verdict on everything that is in memory during a step; None = the batch cannot be divided.

    It is a problem only if it is one with short texts, too: the Q-Former computes no padding.
    """
    assert machine.memory is not None
    share, rest = divmod(config.global_batch_size, machine.processes)
    micro, uneven = divmod(share, config.accumulate)
    if rest or uneven:
        return None
    on_gpu = machine.kind != "cpu"
    usable = usable_bytes(machine.memory / 2**30) if on_gpu else float(machine.memory)
    each = usable / (1 if on_gpu else machine.devices) - state
    together = share if config.accumulate > 1 else 0
    where = "each process" if on_gpu or machine.devices == 1 else f"each of the {machine.devices} processes"
    takes = (
        f"weights, gradients and AdamW take {size_text(state)} in {where}, a micro-batch of {micro} "
        f"{size_text(step.most(micro, together))} at most; there are {size_text(machine.memory)}"
    )
    if step.most(micro, together) <= each:
        return Finding(OK, takes)
    largest = step.largest_micro_batch(each, share)
    fits = [n for n in range(config.accumulate, share + 1) if share % n == 0 and share // n <= largest]
    fix = f"accumulate={fits[0]} makes micro-batches of {share // fits[0]}" if fits else _fix(config, machine)
    if planner(min(SHORT_TEXT, config.max_text_length), on_gpu).most(micro, together) > each:
        return Finding(PROBLEM, f"{takes}: {fix}")
    return Finding(WARNING, f"{takes}, too little if all texts have {config.max_text_length} tokens: {fix}")


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


def _verdict(state: int, config: DictConfig, machine: Machine) -> Finding:
    """On weights and optimiser alone."""
    shared = machine.devices if machine.kind == "cpu" else 1
    needed = state * shared
    where = "each process" if shared == 1 else f"the {shared} processes of a machine"
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
