"""Convert weights between formats: python scripts/convert_checkpoint.py <source> --to <folder or file.pth>."""

import _environment  # noqa: F401  (goes on in .venv if this Python lacks the project)

from blip2_train.cli.convert_checkpoint import command

if __name__ == "__main__":
    command()
