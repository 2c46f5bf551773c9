"""A page in the browser that uses trained models: `python scripts/app.py [--model <export>] [--port 7860]`."""

import _environment  # noqa: F401  (goes on in .venv if this Python lacks the project)

from blip2_train.cli.app import command

if __name__ == "__main__":
    command()
