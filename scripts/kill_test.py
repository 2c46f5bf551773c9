"""Kill a run and commands again and again, and compare with what was never killed: `python scripts/kill_test.py`."""

import runpy
from pathlib import Path

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).parents[1] / "tests/kill_test"), run_name="__main__")
