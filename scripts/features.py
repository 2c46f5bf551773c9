"""Store features of a frozen tower: `python scripts/features.py experiment=<recipe> output=<folder> crops=2`."""

from blip2_train.cli.features.command import command

if __name__ == "__main__":
    command()
