"""Give images better captions: `python scripts/capfilt.py source=<shards> output=<folder> captioner=… scorer=…`."""

from capfilt_demo.command import command

if __name__ == "__main__":
    command()
