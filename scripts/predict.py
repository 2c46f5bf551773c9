"""Use a trained model: `python scripts/predict.py caption --model <export> <images or folders>`."""

import _environment  # noqa: F401  (goes on in .venv if this Python lacks the project)

from blip2_train.cli.predict.command import command

if __name__ == "__main__":
    command()
