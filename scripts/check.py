"""Look at a recipe's data before training on it: `python scripts/check.py experiment=demo_stage1`."""

import _environment  # noqa: F401  (goes on in .venv if this Python lacks the project)

from blip2_train.cli.check import command

if __name__ == "__main__":
    command()
