"""`python scripts/train.py experiment=<recipe> [key=value …]`, or `--multirun … key=a,b` for a sweep."""

from __future__ import annotations

import sys

from blip2_train.cli.terminal import run_command


def main(arguments: list[str]) -> None:
    """Train once, or once for each combination of values."""
    single = [argument for argument in arguments if argument not in ("--multirun", "-m")]
    if single != arguments and not {"--help", "-h", "--list"} & set(arguments):
        from blip2_train.cli.train.sweep.command import sweep_command

        sweep_command(single)
        return
    from blip2_train.cli.train.single import train_single

    train_single(single)


def command() -> None:
    """Entry of the console script."""
    sys.exit(run_command(main))


if __name__ == "__main__":
    command()
