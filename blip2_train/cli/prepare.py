"""`python scripts/prepare.py <set> …`: which official files belong where, and whether what is there is whole."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from blip2_train.cli.command_names import as_called
from blip2_train.cli.terminal import run_command
from blip2_train.config.key_values import flags_as_settings, read_settings
from blip2_train.data.official.inventory import OfficialFile, verify
from blip2_train.data.official.sets import SETS
from blip2_train.errors import ConfigError
from blip2_train.system.screen import echo

ABOUT = f"""\
Look at the files of official data sets in the data folder, a line for each: whether it is there, can be read, has
as many entries as it should, has all its images, and none that must not be trained on. Ends with 0 only if the
named sets are complete. Without a set: lists which files belong where, and checks nothing.

usage: python scripts/prepare.py [set …] [data_dir=<folder>]

  data_dir=<folder>  the data folder (default: $BLIP2_DATA, else data); --data-dir DIR is the same
  --help             this text

sets: {", ".join(SETS)}"""
FLAGS = {"--data-dir": "data_dir="}
"""Other forms of settings."""


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """Where the files lie."""

    data_dir: Path = field(default_factory=lambda: Path(os.environ.get("BLIP2_DATA", "data")))
    """As `paths.data_dir` of the configuration."""


def main(arguments: list[str]) -> None:
    """List what belongs where, or check what is there."""
    if {"--help", "-h"} & set(arguments):
        echo(as_called(ABOUT))
        return
    plain = flags_as_settings(arguments, FLAGS)
    sets = [argument for argument in plain if "=" not in argument]
    (options,) = read_settings([a for a in plain if "=" in a], (PrepareOptions,), "python scripts/prepare.py")
    if unknown := [name for name in sets if name not in SETS]:
        raise ConfigError(f"there is no data set {unknown[0]!r}; choose among {', '.join(SETS)}")
    faults = []
    for name in sets or SETS:
        echo(name)
        if not sets:
            echo("\n".join(f"  {line}" for file in SETS[name] for line in _described(file)))
            continue
        for verdict in verify(SETS[name], options.data_dir):
            echo(f"  {verdict.state:10}{verdict.path}: {verdict.text}", flush=True)
            faults += [verdict.path] if not verdict.good else []
    if faults:
        raise ConfigError(
            f"{len(faults)} of the files under {options.data_dir} are missing or wrong (first: {faults[0]})"
        )


def _described(file: OfficialFile) -> list[str]:
    counts = ", ".join(f"{count:,} {kind}" for kind, count in file.counts.items()) or "any number of entries"
    images = " or ".join(file.folders)
    optional = "optional; " if file.optional else ""
    return [*file.paths, f"    {optional}{counts}; images in {images}", f"    from {file.origin}"]


def command() -> None:
    """Entry of the console script."""
    sys.exit(run_command(main))
