"""Measures a recipe: shows that its plans agree, times them, counts their arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import torch
from omegaconf import DictConfig

from benchmark.agreement import feature_errors
from benchmark.counting import count_flops, count_generation
from benchmark.options import BenchmarkOptions
from benchmark.stages import stage_of
from benchmark.timing import PlanFigures, Runner
from benchmark.workload import batch_source
from blip2_train.config.compose import instantiate
from blip2_train.optim.param_groups import build_adamw, parameter_groups
from blip2_train.types import Batch


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All measurements of a recipe."""

    agreement: list[str]
    """How it was shown that the plans do the same."""
    training: list[PlanFigures]
    generation: list[PlanFigures]
    """Of plans that generate text; empty where there are none."""
    generation_note: str = ""


def measure(config: DictConfig, options: BenchmarkOptions, say: Callable[[str], None]) -> Measured:
    """Measure every plan of a recipe.

    Args:
        config: From `compose`.
        options: What to measure.
        say: Receives a line about what happens next.

    Raises:
        TrainingError: if plans that should do the same do not.
    """
    stage, device = stage_of(config), torch.device(options.device)
    names, objective = stage.plan_names(options), instantiate(config.objective)
    say("making the model")
    torch.manual_seed(0)
    with device:
        model = stage.build_model(config, options)

    def random_batch(generator: torch.Generator) -> Batch:
        return stage.synthetic_batch(model, options, config.max_text_length, generator)

    say("comparing what the plans compute")
    agreement = stage.prove(names, model, objective, options)
    stage.use_precision(model, options)
    plans = stage.build_plans(names, model, objective)
    adam = instantiate(config.optim)
    groups = parameter_groups(model.named_parameters(), model.vision_model.num_blocks, adam)
    runner = Runner(model, build_adamw(groups, adam), device, options.precision, say)
    with runner.autocast():
        sample = random_batch(torch.Generator().manual_seed(2)).to(device)
        agreement += stage.prove_timed(plans, model, sample, options.precision)
        if options.vision:
            agreement += feature_errors(plans, model, sample.pixel_values)
    for line in agreement:
        say(line)

    source = batch_source(config, options, random_batch)
    training = runner.time(plans, source, lambda batch: stage.amounts(model, batch), options.steps)
    say("counting the arithmetic")
    _add(count_flops(config, options), training)
    workload = stage.generation_workload(names, model, options)
    if workload is None:
        return Measured(agreement=agreement, training=training, generation=[])
    figures = runner.time(workload.plans, lambda: repeat(workload.batch), lambda _: workload.amounts, options.steps)
    say("counting the arithmetic")
    with runner.autocast():
        _add(count_generation(workload.plans, workload.batch.to(device), model), figures)
    return Measured(agreement=agreement, training=training, generation=figures, generation_note=workload.note)


def _add(counts: Mapping[str, dict[str, float]], figures: Sequence[PlanFigures]) -> None:
    for figure in figures:
        figure.flops = counts[figure.plan.name]
