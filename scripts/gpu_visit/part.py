"""`python -m gpu_visit.part <name> <file> [setting=value …]`: the process of one part."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from gpu_visit.options import read_options
from gpu_visit.parts import PARTS
from gpu_visit.results import SkippedPart, writer
from gpu_visit.running import SKIPPED


def main(name: str, path: str, *settings: str) -> int:
    """Measure the part; its rows go to the file at `path`."""
    options = read_options(settings)
    try:
        import_module(PARTS[name].module).measure(options, writer(Path(path)))
    except SkippedPart as reason:
        print(reason, file=sys.stderr)
        return SKIPPED
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
