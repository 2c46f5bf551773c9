"""List which official files belong where, and check those that are there: `python scripts/prepare.py coco_karpathy`."""

import _environment  # noqa: F401  (goes on in .venv if this Python lacks the project)

from blip2_train.cli.prepare import command

if __name__ == "__main__":
    command()
