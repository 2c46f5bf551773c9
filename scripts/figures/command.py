"""`python scripts/figures.py [name …]`: draws the figures of the documentation anew."""

from __future__ import annotations

import pkgutil
import sys
from pathlib import Path

from blip2_train.cli.terminal import run_command
from blip2_train.errors import ConfigError
from blip2_train.system.atomic_write import write_atomically
from blip2_train.system.screen import echo

FOLDER = Path(__file__).parents[2] / "docs" / "figures"
FIGURES = {
    "masks.png": "figures.masks:masks_png",
    "scene.jpg": "figures.scene:scene_jpg",
    "results.png": "figures.results:results_png",
}
"""The function that gives the content of each, imported only when it does."""
HELP = f"""\
Draw the figures of the documentation into docs/figures.

usage: python scripts/figures.py [{" | ".join(FIGURES)}] [paths.output_dir=outputs]

Without a name all are drawn. results.png is drawn from the newest runs of demo_stage1 and demo_stage2_opt, which
bash run_scripts/pretrain_stage1.sh and bash run_scripts/pretrain_stage2.sh make."""
_OUTPUT = "paths.output_dir="


def main(arguments: list[str]) -> None:
    """Draw figures into `docs/figures`."""
    if {"--help", "-h"} & set(arguments):
        echo(HELP)
        return
    named = [argument for argument in arguments if not argument.startswith(_OUTPUT)]
    if unknown := [name for name in named if name not in FIGURES]:
        raise ConfigError(f"{unknown[0]}: there is no such figure; there are {', '.join(FIGURES)}")
    runs = [argument.removeprefix(_OUTPUT) for argument in arguments if argument.startswith(_OUTPUT)]
    for name in named or FIGURES:
        draw = pkgutil.resolve_name(FIGURES[name])
        content = draw(*runs[-1:]) if name == "results.png" else draw()
        echo(str(write_atomically(FOLDER / name, content)))


def command() -> None:
    """Entry of the script."""
    sys.exit(run_command(main))
