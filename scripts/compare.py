"""Compare runs: python scripts/compare.py <run> <run> … [--output comparison.html]."""

import _environment  # noqa: F401  (goes on in .venv if this Python lacks the project)

from blip2_train.cli.compare import command

if __name__ == "__main__":
    command()
