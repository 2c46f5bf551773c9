"""Ablate parts of the paper on the embedded world: `python scripts/ablate.py [seeds=0,1]`."""

from ablations.command import command

if __name__ == "__main__":
    command()
