"""Kill the making of shards again and again, and compare them with others: `python scripts/kill_preparation.py`."""

import runpy

from _environment import ROOT  # it goes on in .venv if this Python lacks the project

if __name__ == "__main__":
    runpy.run_path(f"{ROOT}/tests/kill_test/preparation.py", run_name="__main__")
