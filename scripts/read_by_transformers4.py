"""Read exports with transformers 4 and 5, and compare: `python scripts/read_by_transformers4.py [<source> …]`."""

from other_transformers.command import command

if __name__ == "__main__":
    command()
