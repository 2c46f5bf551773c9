"""Count what the design promises about the code: `python scripts/house.py [root=<checkout>] [list=true]`."""

import _environment  # noqa: F401  (goes on in .venv if this Python lacks the project)
from house.command import command

if __name__ == "__main__":
    command()
