"""`python scripts/read_by_transformers4.py [<source> …]`: do transformers 4 and 5 read the same from an export?"""

from __future__ import annotations

import argparse
import sys

from blip2_train.cli.command_parser import CommandParser
from blip2_train.cli.terminal import run_command

ABOUT = """\
Export models for transformers, read each export with another version of transformers and with the one of this project,
and compare what they make of 8 images: captions with and without a prompt, or scores of images and texts. The other
version gets an environment of its own in a temporary folder, which is deleted at the end (several GB; torch is that of
this project). Ends with 1 if anything differs. Without a source, small models of the demo are tried."""
VERSION = "4.57.6"


def main(arguments: list[str]) -> None:
    """Export, read twice, compare."""
    options = _parser().parse_args(arguments)
    from other_transformers.comparison import compare  # loads torch, which help does not need

    if not compare(options):
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="read_by_transformers4.py", description=ABOUT)
    parser.add_argument("sources", nargs="*", metavar="source", help="whatever predict.py takes as --model")
    parser.add_argument("--version", default=VERSION, help=f"the other transformers (default {VERSION})")
    parser.add_argument("--python", metavar="FILE", help="Python of an environment that has it, instead of a new one")
    return parser


def command() -> None:
    """Entry of the script."""
    sys.exit(run_command(main))
