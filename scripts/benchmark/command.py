"""`python scripts/benchmark.py experiment=<recipe> [option=value …]`."""

from __future__ import annotations

import pkgutil
import sys

from benchmark.comparisons.command import SYNTAX as COMPARISONS_SYNTAX
from benchmark.loader.options import SYNTAX as LOADER_SYNTAX
from benchmark.options import SYNTAX, split_options
from benchmark.shards.options import SYNTAX as SHARDS_SYNTAX
from blip2_train.cli.terminal import config_from, run_command
from blip2_train.errors import ConfigError

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
    "part=loader": "benchmark.loader.command:measure_loader",
    "part=shards": "benchmark.shards.command:measure_shards",
    "part=watch": "benchmark.watching:watch",
    "part=comparisons": "benchmark.comparisons.command:compare",
}
"""What is measured without a recipe, imported only when it is."""


def main(arguments: list[str]) -> None:
    """Measure, print tables, and write JSON if asked to."""
    parts = [argument for argument in arguments if argument.startswith("part=")]
    if parts:
        if len(parts) > 1 or parts[0] not in PARTS:
            known = " or ".join(PARTS)
            raise ConfigError(f"{' '.join(parts)}: write {known}, or leave it out to time a recipe's steps")
        pkgutil.resolve_name(PARTS[parts[0]])([argument for argument in arguments if argument not in parts])
        return
    if {"--help", "-h", "--list"} & set(arguments):
        config_from(arguments, ABOUT, USAGE)
        return
    options, rest = split_options(arguments)
    settings = [argument for argument in rest if not argument.startswith("-")]
    if settings:
        rest = ["init_from=null", *rest, f"global_batch_size={options.batch_size}", "accumulate=1"]
    config = config_from(rest, ABOUT, USAGE)
    if config is None:
        return
    from benchmark.recipe import measure_recipe  # loads torch, which help and lists do not need

    measure_recipe(config, options)


def command() -> None:
    """Entry of the script."""
    sys.exit(run_command(main))
