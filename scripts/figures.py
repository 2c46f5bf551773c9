"""Draw the figures of the documentation: `python scripts/figures.py`."""

import _environment  # noqa: F401  (goes on in .venv if this Python lacks the project)
from figures.command import command

if __name__ == "__main__":
    command()
