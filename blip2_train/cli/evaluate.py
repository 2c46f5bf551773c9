"""`python scripts/evaluate.py evaluation=[<task>,…] checkpoint=<export, folder, id or file> [key=value …]`."""

from __future__ import annotations

import sys

from omegaconf import DictConfig

from blip2_train.cli.terminal import evaluation_from, run_command
from blip2_train.config.run_folder import new_run_folder


def main(arguments: list[str]) -> None:
    """Compose, and evaluate."""
    config = evaluation_from(arguments)
    if config is None:
        return
    with new_run_folder(config, arguments) as own:
        evaluate(own)
    from blip2_train.distributed import leave_group

    leave_group()


def evaluate(config: DictConfig) -> dict[str, dict[str, float | None]]:
    """Evaluate with a configuration, on all processes that were started (torchrun); each sample exactly once.

    Args:
        config: From `compose_evaluation`.

    Returns:
        By task, its scores by name; None where one could not be computed.
    """
    from blip2_train.cli import evaluation  # loads torch, which help and lists do not need

    return evaluation.evaluate(config)


def command() -> None:
    """Entry of the console script."""
    sys.exit(run_command(main))
