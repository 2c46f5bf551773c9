"""Compute what recipes take of a GPU: `python scripts/costs.py [recipes=stage1_vit_g] [utilisation=0.35]`."""

import _environment  # noqa: F401  (goes on in .venv if this Python lacks the project)
from costs.command import command

if __name__ == "__main__":
    command()
