"""Give pictures better captions: `python scripts/capfilt.py source=<shards> output=<folder> captioner=… scorer=…`."""

from blip2_train.cli.capfilt.command import command

if __name__ == "__main__":
    command()
