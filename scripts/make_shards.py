"""Turn captions with images into tar shards: `python scripts/make_shards.py source=captions.csv output=shards/`."""

import _environment  # noqa: F401  (goes on in .venv if this Python lacks the project)

from blip2_train.cli.make_shards import command

if __name__ == "__main__":
    command()
