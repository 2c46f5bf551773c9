"""`python tests/kill_test [option=value …]`."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])

from kill_test.command import command  # noqa: E402

command()
