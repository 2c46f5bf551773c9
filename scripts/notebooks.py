"""Run the notebooks of the documentation on models of the demo: `python scripts/notebooks.py`."""

from notebooks.command import command

if __name__ == "__main__":
    command()
