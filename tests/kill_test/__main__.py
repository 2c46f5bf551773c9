"""`python tests/kill_test [option=value …]`."""

import sys
from pathlib import Path

_TESTS = Path(__file__).parents[1]
sys.path[:1] = [str(_TESTS), str(_TESTS / "support")]

from kill_test.command import command  # noqa: E402

command()
