"""Score a file of predictions: `python scripts/score.py captions --predictions results.json --annotations …`."""

from blip2_train.cli.score import command

if __name__ == "__main__":
    command()
