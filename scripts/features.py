"""Store features of a frozen tower: `python scripts/features.py experiment=<recipe> output=<folder> crops=2`."""

import _environment  # noqa: F401  (goes on in .venv if this Python lacks the project)

from blip2_train.cli.features.command import command

if __name__ == "__main__":
    command()
