"""Try the lowest and the newest versions that pyproject.toml admits: `python scripts/versions.py`."""

from versions.command import command

if __name__ == "__main__":
    command()
