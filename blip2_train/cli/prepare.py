"""`python scripts/prepare.py <set> …`: which official files belong where, and whether what is there is whole."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from blip2_train.cli.command_parser import CommandParser
from blip2_train.cli.terminal import run_command
from blip2_train.data.official.inventory import OfficialFile, verify
from blip2_train.data.official.sets import SETS
from blip2_train.errors import ConfigError
from blip2_train.system.screen import echo

ABOUT = f"""\
Look at the files of official data sets in the data folder, a line for each: whether it is there, can be read, has
as many entries as it should, has all its images, and none that must not be trained on. Ends with 0 only if the
sets that were named are whole. Without a set: tells which files belong where, and looks at nothing.

sets: {", ".join(SETS)}"""


def main(arguments: list[str]) -> None:
    """List what belongs where, or check what is there."""
    options = _options(arguments)
    faults = []
    for name in options.sets or SETS:
        echo(name)
        if not options.sets:
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


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = CommandParser(prog="prepare.py", description=ABOUT)
    parser.add_argument("sets", nargs="*", metavar="set", help="sets to check")
    # As paths.data_dir of the configuration.
    default = Path(os.environ.get("BLIP2_DATA", "data"))
    parser.add_argument(
        "--data-dir", type=Path, default=default, metavar="DIR", help="data folder (default: $BLIP2_DATA, else data)"
    )
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.sets if name not in SETS]:
        raise ConfigError(f"there is no data set {unknown[0]!r}; choose among {', '.join(SETS)}")
    return options


def command() -> None:
    """Entry of the console script."""
    sys.exit(run_command(main))
