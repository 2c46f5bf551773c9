"""Look at a whole set-up before paying for it: `python scripts/doctor.py experiment=demo_stage1`."""

from blip2_train.cli.doctor.command import command

if __name__ == "__main__":
    command()
