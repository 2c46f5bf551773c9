"""`python scripts/convert_checkpoint.py <source> --to <folder or file>`: weights from any known format into another."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from blip2_train.checkpoints.source_kinds import UNDERSTOOD
from blip2_train.cli.command_parser import CommandParser
from blip2_train.cli.predict.options import DTYPES
from blip2_train.cli.terminal import run_command
from blip2_train.errors import ConfigError

FORMATS = ("blip2_train", "huggingface", "lavis")
_FILES = (".pth", ".pt")


def main(arguments: list[str]) -> None:
    """Convert, and print what the source was and what became of it."""
    options = _options(arguments)
    target, form = Path(options.to).expanduser(), _format(options)
    from blip2_train.cli.conversion import convert  # loads torch, which help does not need

    convert(options, target, form)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = CommandParser(
        prog="convert_checkpoint.py",
        description="Convert weights into another format; what the source is, is found out from its content.",
    )
    parser.add_argument("source", help=UNDERSTOOD)
    parser.add_argument("--to", required=True, help="folder to write, or file.pth for lavis; must not exist yet")
    parser.add_argument("--format", choices=FORMATS, help="default: lavis for a .pth file, else blip2_train")
    parser.add_argument(
        "--language-model", help="folder or hub id of the language model, if the source does not hold it"
    )
    parser.add_argument("--vision-weights", help="file with the tower's weights, or timm, if the source lacks them")
    parser.add_argument("--tokenizer", help="folder or hub id of the Q-Former's tokenizer, if the source lacks it")
    parser.add_argument("--dtype", choices=list(DTYPES), help="of the frozen parts; default: as stored or configured")
    return parser.parse_args(arguments)


def _format(options: argparse.Namespace) -> str:
    target = Path(options.to).expanduser()
    is_file = target.suffix in _FILES
    form = options.format or ("lavis" if is_file else "blip2_train")
    if is_file != (form == "lavis"):
        expected = "a file that ends in .pth" if form == "lavis" else "a folder"
        raise ConfigError(f"--to {options.to}: the format {form} is {expected}")
    if target.exists():
        raise ConfigError(f"--to {options.to} exists already; choose another name, or remove it first")
    return str(form)


def command() -> None:
    """Entry of the console script."""
    sys.exit(run_command(main))
