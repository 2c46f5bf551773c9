"""Show a recipe's model part by part: `python scripts/describe.py experiment=stage1_vit_g`."""

from blip2_train.cli.describe import command

if __name__ == "__main__":
    command()
