"""`python scripts/benchmark.py experiment=<recipe> [option=value …]`."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from rich.console import Console

from blip2_train.cli.benchmark.measure import measure
from blip2_train.cli.benchmark.meters import matmul_ceiling
from blip2_train.cli.benchmark.options import SYNTAX, BenchmarkOptions, split_options
from blip2_train.cli.benchmark.table import as_record, as_table
from blip2_train.cli.terminal import config_from, run_command
from blip2_train.errors import ConfigError

ABOUT = f"""Time a recipe's steps by part, and compare ways to run them; weights are random, nothing is downloaded.

{SYNTAX}"""
USAGE = "python scripts/benchmark.py"


def main(arguments: list[str]) -> None:
    """Measure, print a table, and write JSON if asked to."""
    options, rest = split_options(arguments)
    settings = [argument for argument in rest if not argument.startswith("-")]
    sizes = [f"global_batch_size={options.batch_size}", "accumulate=1"] if settings else []
    config = config_from([*rest, *sizes], ABOUT, USAGE)
    if config is None:
        return
    fewest, most = options.tokens
    if most > config.max_text_length:
        raise ConfigError(f"tokens={fewest}-{most}, but the recipe's max_text_length is {config.max_text_length}")
    if options.json is not None and not options.json.parent.is_dir():
        raise ConfigError(f"json={options.json}: there is no folder {options.json.parent}")
    device = torch.device(options.device)
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    ceiling = matmul_ceiling(device, dtype)
    figures = measure(config, options, lambda text: print(text, file=sys.stderr, flush=True))
    record = as_record(figures, options.batch_size, ceiling, _about(config.experiment, options))
    Console(width=None if sys.stdout.isatty() else 190).print(as_table(record))
    if options.json is not None:
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _about(recipe: str, options: BenchmarkOptions) -> dict[str, Any]:
    on_gpu = options.device == "cuda"
    captions = f"captions of {options.tokens[0]} to {options.tokens[1]} tokens"
    pictures = "random pictures" if options.vision else "random patch features, no tower"
    return {
        "recipe": recipe,
        "device": torch.cuda.get_device_name() if on_gpu else f"cpu, {torch.get_num_threads()} threads",
        "precision": options.precision,
        "torch": torch.__version__,
        "steps": options.steps,
        "data": "the recipe's loader" if options.loader else f"{pictures}, {captions}",
    }


def command() -> None:
    """Entry of the script."""
    sys.exit(run_command(main))
