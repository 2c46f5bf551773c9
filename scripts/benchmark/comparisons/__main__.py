"""Measures one part in a process of its own: `python -m benchmark.comparisons <part> <file for the results>`."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from pathlib import Path

from benchmark.comparisons.parts import PARTS


def main(name: str, path: Path) -> None:
    """Measure a part and write its comparisons as JSON."""
    compared = importlib.import_module(PARTS[name].module).compare()
    path.write_text(json.dumps([dataclasses.asdict(comparison) for comparison in compared]), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
