"""Measure and test this project on a GPU in nine minutes: `python scripts/gpu_visit.py [device=cpu size=small]`."""

import sys

from gpu_visit.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
