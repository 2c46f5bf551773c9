"""Study what matters in training, on the emoji scenes: `python scripts/study.py itm [seeds=0,1]`."""

import _environment  # noqa: F401  (goes on in .venv if this Python lacks the project)
from studies.command import command

if __name__ == "__main__":
    command()
