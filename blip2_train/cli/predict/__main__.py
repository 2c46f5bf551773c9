"""`python -m blip2_train.cli.predict`."""

from blip2_train.cli.predict.command import command

command()
