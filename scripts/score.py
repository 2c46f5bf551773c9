"""Score a file of predictions: `python scripts/score.py captions --predictions results.json --annotations …`."""

import _environment  # noqa: F401  (goes on in .venv if this Python lacks the project)

from blip2_train.cli.score import command

if __name__ == "__main__":
    command()
