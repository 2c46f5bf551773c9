"""`python scripts/predict.py {caption,answer,chat,match,embed}`: use a trained model on images."""

from __future__ import annotations

import sys

from blip2_train.cli.predict.options import parser
from blip2_train.cli.terminal import run_command


def main(arguments: list[str]) -> None:
    """Read the options, then do the task; what it needs is imported only once the options are right."""
    options = parser().parse_args(arguments)
    from blip2_train.cli.predict.tasks import perform

    perform(options)


def command() -> None:
    """Entry of the console script."""
    sys.exit(run_command(main))
