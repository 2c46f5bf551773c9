"""Kill a run and commands again and again, and compare with what was never killed: `python scripts/kill_test.py`."""

import runpy

from _environment import ROOT  # it goes on in .venv if this Python lacks the project

if __name__ == "__main__":
    runpy.run_path(f"{ROOT}/tests/kill_test", run_name="__main__")
