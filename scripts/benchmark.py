"""Time training steps and generation by part: `python scripts/benchmark.py experiment=stage1_vit_g`."""

from benchmark.command import command

if __name__ == "__main__":
    command()
