"""Run the notebooks of the documentation on models of the demo: `python scripts/notebooks.py`."""

import _environment  # noqa: F401  (goes on in .venv if this Python lacks the project)
from notebooks.command import command

if __name__ == "__main__":
    command()
