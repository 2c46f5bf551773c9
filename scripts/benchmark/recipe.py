"""Measures a recipe in one or several precisions: tables, and JSON if asked for."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from omegaconf import DictConfig
from rich.console import Console

from benchmark.measure import measure
from benchmark.meters import matmul_ceiling
from benchmark.options import BenchmarkOptions, precision_type
from benchmark.record import Record, as_record
from benchmark.stages import stage_of
from benchmark.table import as_table
from blip2_train.errors import ConfigError
from blip2_train.system.screen import echo, make_console


def measure_recipe(config: DictConfig, options: BenchmarkOptions) -> None:
    """Measure, print tables, and write JSON if asked to.

    Raises:
        ConfigError: if recipe and options do not fit each other.
    """
    _check(config, options)
    console = make_console(width=None if sys.stdout.isatty() else 190)
    records = [_run(config, one, console) for one in options.each_precision()]
    if options.json is not None:
        printed = records[0] if len(records) == 1 else records
        options.json.write_text(json.dumps(printed, indent=1) + "\n", encoding="utf-8")


def _check(config: DictConfig, options: BenchmarkOptions) -> None:
    fewest, most = options.tokens
    if most > config.max_text_length:
        raise ConfigError(f"tokens={fewest}-{most}, but the recipe's max_text_length is {config.max_text_length}")
    if options.json is not None and not options.json.parent.is_dir():
        raise ConfigError(f"json={options.json}: there is no folder {options.json.parent}")
    if config.peft is not None:
        raise ConfigError("adapters are not measured here; leave out peft=lora")
    stage_of(config).plan_names(options)


def _run(config: DictConfig, options: BenchmarkOptions, console: Console) -> Record:
    """Measure in one precision and print the tables."""
    ceiling = matmul_ceiling(torch.device(options.device), precision_type(options.precision))
    measured = measure(config, options, lambda text: echo(text, file=sys.stderr, flush=True))
    about = _about(config.experiment, options)
    record = as_record(measured.training, ceiling, {**about, "what": "training step", "agreement": measured.agreement})
    for line in measured.agreement:
        console.print(f"the plans agree: {line}", highlight=False)
    console.print(as_table(record))
    if measured.generation:
        written = {**about, "what": "generation", "data": measured.generation_note}
        record["generation"] = as_record(measured.generation, ceiling, written)
        console.print(as_table(record["generation"]))
    return record


def _about(recipe: str, options: BenchmarkOptions) -> dict[str, Any]:
    on_gpu = options.device == "cuda"
    captions = f"captions of {options.tokens[0]} to {options.tokens[1]} tokens"
    images = "random images" if options.vision else "random patch features, no tower"
    return {
        "recipe": recipe,
        "device": torch.cuda.get_device_name() if on_gpu else f"cpu, {torch.get_num_threads()} threads",
        "precision": options.precision,
        "torch": torch.__version__,
        "steps": options.steps,
        "batch_size": options.batch_size,
        "data": "the recipe's loader" if options.loader else f"{images}, {captions}",
    }
