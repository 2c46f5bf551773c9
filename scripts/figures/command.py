"""`python scripts/figures.py`: draws every figure of the documentation anew."""

from __future__ import annotations

import pkgutil
import sys
from pathlib import Path

from blip2_train.cli.terminal import run_command
from blip2_train.errors import ConfigError
from blip2_train.system.screen import echo

FOLDER = Path(__file__).parents[2] / "docs" / "figures"
FIGURES = {"masks.png": "figures.masks:draw_masks"}
"""The function that draws each, imported only when it does."""


def main(arguments: list[str]) -> None:
    """Draw all figures into `docs/figures`."""
    if arguments:
        raise ConfigError(f"{arguments[0]}: figures.py takes no arguments; it draws {', '.join(FIGURES)}")
    for name, draw in FIGURES.items():
        pkgutil.resolve_name(draw)().savefig(FOLDER / name, dpi=150, facecolor="white")
        echo(str(FOLDER / name))


def command() -> None:
    """Entry of the script."""
    sys.exit(run_command(main))
