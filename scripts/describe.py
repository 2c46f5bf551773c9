"""Show a recipe's model part by part: `python scripts/describe.py experiment=stage1_vit_g`."""

import _environment  # noqa: F401  (goes on in .venv if this Python lacks the project)

from blip2_train.cli.describe import command

if __name__ == "__main__":
    command()
