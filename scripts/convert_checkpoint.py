"""Convert weights between formats: python scripts/convert_checkpoint.py <source> --to <folder or file.pth>."""

from blip2_train.cli.convert_checkpoint import command

if __name__ == "__main__":
    command()
