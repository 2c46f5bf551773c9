"""Count what the design promises about the code: `python scripts/house.py [root=<checkout>] [list=true]`."""

from house.command import command

if __name__ == "__main__":
    command()
