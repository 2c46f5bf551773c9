"""`python scripts/figures.py`: draws every figure of the documentation anew."""

from __future__ import annotations

import sys
from pathlib import Path

from blip2_train.cli.terminal import run_command
from blip2_train.errors import ConfigError
from blip2_train.system.screen import echo
from figures.masks import draw_masks

FOLDER = Path(__file__).parents[2] / "docs" / "figures"
FIGURES = {"masks.png": draw_masks}


def main(arguments: list[str]) -> None:
    """Draw all figures into `docs/figures`."""
    if arguments:
        raise ConfigError(f"{arguments[0]}: figures.py takes no arguments; it draws {', '.join(FIGURES)}")
    for name, draw in FIGURES.items():
        draw().savefig(FOLDER / name, dpi=150, facecolor="white")
        echo(str(FOLDER / name))


def command() -> None:
    """Entry of the script."""
    sys.exit(run_command(main))
