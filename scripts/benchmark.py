"""Time training steps and generation by part: `python scripts/benchmark.py experiment=stage1_vit_g`."""

import _environment  # noqa: F401  (goes on in .venv if this Python lacks the project)
from benchmark.command import command

if __name__ == "__main__":
    command()
