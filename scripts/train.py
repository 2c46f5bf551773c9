"""Train: `python scripts/train.py experiment=demo_stage1`."""

from blip2_train.cli.train.command import command

if __name__ == "__main__":
    command()
