"""Evaluate trained models: python scripts/evaluate.py evaluation=[nocaps] checkpoint=<export, folder or id>."""

from blip2_train.cli.evaluate import command

if __name__ == "__main__":
    command()
