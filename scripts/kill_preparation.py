"""Kill the making of shards again and again, and compare them with others: `python scripts/kill_preparation.py`."""

import runpy
from pathlib import Path

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).parents[1] / "tests/kill_test/preparation.py"), run_name="__main__")
