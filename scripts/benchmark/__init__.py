"""Times and counts the steps of both stages, part by part, of several plans in one run.

One of the plans is the plain second implementation of a step that the tests compare with.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "tests" / "support"))
