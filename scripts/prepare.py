"""List which official files belong where, and check those that are there: `python scripts/prepare.py coco_karpathy`."""

from blip2_train.cli.prepare import command

if __name__ == "__main__":
    command()
