"""Kill a run again and again and compare it with one that was never killed: `python scripts/kill_test.py`."""

from blip2_train.cli.kill_test.command import command

if __name__ == "__main__":
    command()
