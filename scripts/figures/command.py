"""`python scripts/figures.py`: draws every figure of the documentation anew."""

from __future__ import annotations

import pkgutil
import sys
from pathlib import Path

from blip2_train.cli.terminal import run_command
from blip2_train.errors import ConfigError
from blip2_train.system.screen import echo

FOLDER = Path(__file__).parents[2] / "docs" / "figures"
FIGURES = {"masks.png": "figures.masks:masks_png", "scene.jpg": "figures.scene:scene_jpg"}
"""The function that gives the content of each, imported only when it does."""


def main(arguments: list[str]) -> None:
    """Draw all figures into `docs/figures`."""
    if arguments:
        raise ConfigError(f"{arguments[0]}: figures.py takes no arguments; it draws {', '.join(FIGURES)}")
    for name, draw in FIGURES.items():
        (FOLDER / name).write_bytes(pkgutil.resolve_name(draw)())
        echo(str(FOLDER / name))


def command() -> None:
    """Entry of the script."""
    sys.exit(run_command(main))
