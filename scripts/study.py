"""Study what matters in training, on the embedded world: `python scripts/study.py itm [seeds=0,1]`."""

from studies.command import command

if __name__ == "__main__":
    command()
