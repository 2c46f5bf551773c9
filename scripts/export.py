"""Write an export of a run: python scripts/export.py <run folder or checkpoint> [folder]."""

from blip2_train.cli.export import command

if __name__ == "__main__":
    command()
