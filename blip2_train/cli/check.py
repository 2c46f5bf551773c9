"""`python scripts/check.py experiment=<recipe> data=<set>`: what a run would read, before it costs anything."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from blip2_train.cli.terminal import config_from, run_command
from blip2_train.config.key_values import flags_as_settings, split_settings
from blip2_train.errors import ConfigError

ABOUT = (
    "Look at the data of a recipe: counts, samples as the model will read them, broken and repeated images, captions "
    "that are cut, unknown tokens. Looks at 1,000 samples of each source, with all=true (or --all) at all of them. "
    "Exits with 2 if a run would stop, or could learn nothing of the texts."
)
USAGE = "python scripts/check.py [all=true] [samples=N]"
FLAGS = {"--all": "all=true", "--samples": "samples="}
"""Other forms of settings."""
LOOKED_AT = 1000
"""Samples of each source that are looked at unless all are."""


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """How much is looked at and shown."""

    all: bool = False
    """Whether all samples are looked at, not `LOOKED_AT` of each source."""
    samples: int = 3
    """Samples shown as the model reads them."""

    def __post_init__(self) -> None:
        if self.samples < 0:
            raise ConfigError(f"samples must be 0 (none) or more, got {self.samples}")


def main(arguments: list[str]) -> None:
    """Print what the configured data are like.

    Raises:
        ShardError: if a run on them would stop, or the tokenizer does not know their texts.
    """
    options, settings = split_settings(flags_as_settings(arguments, FLAGS), CheckOptions)
    most = None if options.all else LOOKED_AT
    config = config_from(["init_from=null", *settings], ABOUT, USAGE)
    if config is None:
        return
    from blip2_train.cli.data_report import look_at_data  # loads torch, which help and lists do not need

    look_at_data(config, most, options.samples)


def command() -> None:
    """Entry of the console script."""
    sys.exit(run_command(main))
