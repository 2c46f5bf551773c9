"""`python scripts/capfilt.py demo [key=value …]`: what CapFilt is worth; without `demo`, the command itself."""

from __future__ import annotations

import sys

from blip2_train.cli.capfilt.command import main as filter_captions
from blip2_train.cli.terminal import run_command


def main(arguments: list[str]) -> None:
    """Show what CapFilt is worth, or run it."""
    if arguments[:1] != ["demo"]:
        return filter_captions(arguments)
    from capfilt_demo.demo import demonstrate

    return demonstrate(arguments[1:])


def command() -> None:
    """Entry of the script."""
    sys.exit(run_command(main))
