"""Look at a recipe's data before training on it: `python scripts/check.py experiment=demo_stage1`."""

from blip2_train.cli.check import command

if __name__ == "__main__":
    command()
