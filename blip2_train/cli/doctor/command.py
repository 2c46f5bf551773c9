"""`python scripts/doctor.py experiment=<recipe> data=<set> [measure=<steps>]`: is everything ready for this run?"""

from __future__ import annotations

import sys

from blip2_train.cli.doctor.options import SYNTAX, split_options
from blip2_train.cli.terminal import config_from, run_command

ABOUT = f"""Look at everything a run needs before it is paid for: devices, data, labels, weights, memory, disk, Java
and time. No run folder is made. Exits with 2 if there are problems, and names them all.

{SYNTAX}"""
USAGE = "python scripts/doctor.py"


def main(arguments: list[str]) -> None:
    """Examine, print a table, and every problem in a line of its own.

    Raises:
        NotReadyError: if there is a problem.
    """
    options, settings = split_options(arguments)
    config = config_from(settings, ABOUT, USAGE)
    if config is None:
        return
    from blip2_train.cli.doctor.examinations import examine_all  # loads torch, which help and lists do not need

    examine_all(config, options)


def command() -> None:
    """Entry of the console script."""
    sys.exit(run_command(main))
