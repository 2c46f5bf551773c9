"""`python scripts/features.py experiment=<recipe> output=<folder> [key=value …]`: stored features of a frozen tower."""

from __future__ import annotations

import sys

from blip2_train.cli.terminal import config_from, evaluation_from, run_command
from blip2_train.config.key_values import split_settings

ABOUT = """\
Compute the features of a recipe's frozen vision tower once for each image that the recipe trains on or validates
with, and store them: a run with data.features=<output> reads them instead of running the tower. Takes the command
line of the training, with output= and settings of its own; or, for evaluate.py with features=<output>, that of an
evaluation: evaluation=[…] checkpoint=<model>. States the disk space and the time before it begins;
repeated, it goes on where it was stopped.

  output=<folder>         a new one, or that of the same command before
  crops=<n>               training crops of each image, of which training draws one each time (1); 0 = none, for
                          images that are only evaluated; images of validation have one crop, that of evaluation
  bits=<8|16|32>          per number (16: exact for towers in 16 bits; 32: exact for those in float32)
  batch_size=<n>          crops at once (16); changes nothing but rounding
  images_per_shard=<n>    images in every shard but the last (256)
  device=<name>           cpu, cuda, … (a GPU if there is one)
  workers=<n>             processes, each with the tower (one per GPU, without GPU one that uses all cores)
  engine=<local|ray> ray_address=<address> gpus_per_worker=<n>   as for capfilt.py; all machines must see data,
                          weights and output"""
USAGE = "python scripts/features.py output=<folder> [crops=<n>]"


def main(arguments: list[str]) -> None:
    """Store features."""
    if {"--help", "-h", "--list"} & set(arguments):
        config_from(arguments, ABOUT, USAGE)
        return
    from blip2_train.cli.features.storing import Request, store_evaluated, store_features  # loads torch

    request, settings = split_settings(arguments, Request)
    evaluates = any(setting.startswith("evaluation=") for setting in settings)
    config = evaluation_from(settings) if evaluates else config_from(settings, ABOUT, USAGE)
    if config is not None:
        (store_evaluated if evaluates else store_features)(config, request)


def command() -> None:
    """Entry of the console script."""
    sys.exit(run_command(main))
