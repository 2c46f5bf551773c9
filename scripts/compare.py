"""Compare runs: python scripts/compare.py <run> <run> … [--output comparison.html]."""

from blip2_train.cli.compare import command

if __name__ == "__main__":
    command()
