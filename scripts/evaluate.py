"""Evaluate trained models: python scripts/evaluate.py evaluation=[nocaps] checkpoint=<export, folder or id>."""

import _environment  # noqa: F401  (goes on in .venv if this Python lacks the project)

from blip2_train.cli.evaluate import command

if __name__ == "__main__":
    command()
