"""Draw the figures of the documentation: `python scripts/figures.py`."""

from figures.command import command

if __name__ == "__main__":
    command()
