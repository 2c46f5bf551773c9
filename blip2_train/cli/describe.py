"""`python scripts/describe.py experiment=<recipe>`: the model part by part, without making a single weight."""

from __future__ import annotations

import sys

import torch
from rich.console import Console

from blip2_train.cli.compose import instantiate
from blip2_train.cli.overview import parts_table
from blip2_train.cli.terminal import config_from, run_command
from blip2_train.models.freezing import describe_parameters

ABOUT = "Show what a recipe's model consists of, what trains, and the memory it needs."
USAGE = "python scripts/describe.py"


def main(arguments: list[str]) -> None:
    """Build the model on the meta device and print its parts."""
    config = config_from(arguments, ABOUT, USAGE)
    if config is None:
        return
    with torch.device("meta"):
        parts = describe_parameters(instantiate(config.model))
    Console().print(parts_table(parts))
    print(f"trainable parameters: {sum(part.trainable for part in parts):,}")


def command() -> None:
    """Entry of the console script."""
    sys.exit(run_command(main))
