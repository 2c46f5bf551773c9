"""Write an export of a run: python scripts/export.py <run folder or checkpoint> [folder]."""

import _environment  # noqa: F401  (goes on in .venv if this Python lacks the project)

from blip2_train.cli.export import command

if __name__ == "__main__":
    command()
