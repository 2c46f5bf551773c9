"""`python -m blip2_train.cli.train`."""

from blip2_train.cli.train.command import command

command()
