"""Give images better captions: `python scripts/capfilt.py source=<shards> output=<folder> captioner=… scorer=…`."""

import _environment  # noqa: F401  (goes on in .venv if this Python lacks the project)
from capfilt_demo.command import command

if __name__ == "__main__":
    command()
