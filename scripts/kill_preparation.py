"""Kill the making of shards again and again, and compare them with others: `python scripts/kill_preparation.py`."""

from blip2_train.cli.kill_preparation import command

if __name__ == "__main__":
    command()
