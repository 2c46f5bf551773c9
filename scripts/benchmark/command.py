"""`python scripts/benchmark.py experiment=<recipe> [option=value …]`."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from omegaconf import DictConfig
from rich.console import Console

from benchmark.comparisons.command import SYNTAX as COMPARISONS_SYNTAX
from benchmark.comparisons.command import compare
from benchmark.loader.command import measure_loader
from benchmark.loader.options import SYNTAX as LOADER_SYNTAX
from benchmark.measure import measure
from benchmark.meters import matmul_ceiling
from benchmark.options import PRECISIONS, SYNTAX, BenchmarkOptions, split_options
from benchmark.record import Record, as_record
from benchmark.shards.command import measure_shards
from benchmark.shards.options import SYNTAX as SHARDS_SYNTAX
from benchmark.stages import stage_of
from benchmark.table import as_table
from benchmark.watching import watch
from blip2_train.cli.terminal import config_from, run_command
from blip2_train.errors import ConfigError
from blip2_train.system.screen import echo, make_console

ABOUT = f"""Time a recipe's steps by part, and compare ways to run them; weights are random, nothing is downloaded.

{SYNTAX}

part=loader times reading instead, without a recipe: images a second and core, waiting, resuming; it takes
{LOADER_SYNTAX}

part=shards opens and reads very many shards, and counts the requests to remote storage; it takes
{SHARDS_SYNTAX}

part=comparisons compares the fast paths with plain ones, and the ratios with those to reach; it takes
{COMPARISONS_SYNTAX}

part=watch runs another command and prints how its memory and its open files grow:
  python scripts/benchmark.py part=watch train experiment=demo_stage1"""
USAGE = "python scripts/benchmark.py"
PARTS = {
    "part=loader": measure_loader,
    "part=shards": measure_shards,
    "part=watch": watch,
    "part=comparisons": compare,
}
"""What is measured without a recipe."""


def main(arguments: list[str]) -> None:
    """Measure, print tables, and write JSON if asked to."""
    parts = [argument for argument in arguments if argument.startswith("part=")]
    if parts:
        if len(parts) > 1 or parts[0] not in PARTS:
            known = " or ".join(PARTS)
            raise ConfigError(f"{' '.join(parts)}: write {known}, or leave it out to time a recipe's steps")
        PARTS[parts[0]]([argument for argument in arguments if argument not in parts])
        return
    options, rest = split_options(arguments)
    settings = [argument for argument in rest if not argument.startswith("-")]
    if settings:
        rest = ["init_from=null", *rest, f"global_batch_size={options.batch_size}", "accumulate=1"]
    config = config_from(rest, ABOUT, USAGE)
    if config is None:
        return
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
    ceiling = matmul_ceiling(torch.device(options.device), PRECISIONS[options.precision])
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


def command() -> None:
    """Entry of the script."""
    sys.exit(run_command(main))
