"""`python scripts/check.py experiment=<recipe> data=<set>`: what a run would read, before it costs anything."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from blip2_train.cli.terminal import config_from, run_command
from blip2_train.config.key_values import flags_as_settings, split_settings
from blip2_train.errors import ConfigError

ABOUT = (
    "Look at the data of a recipe: counts, samples as the model will read them, broken and repeated images, captions "
    "that are cut, unknown tokens. Looks at 1,000 samples of each source, with all=true (or --all) at all of them; "
    "sheet=data.html writes a page with images, captions, and what was rejected and why. "
    "Exits with 2 if a run would stop, or could learn nothing of the texts."
)
USAGE = "python scripts/check.py [all=true] [samples=N] [sheet=<file.html>]"
FLAGS = {"--all": "all=true", "--samples": "samples=", "--sheet": "sheet="}
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
    sheet: str | None = None
    """HTML file with images, captions and what was rejected; None = no file is written."""

    def __post_init__(self) -> None:
        if self.samples < 0:
            raise ConfigError(f"samples must be 0 (none) or more, got {self.samples}")
        if self.sheet is not None and not self.sheet.lower().endswith((".html", ".htm")):
            raise ConfigError(f"sheet is an HTML page: sheet=<file>.html, got {self.sheet!r}")


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

    look_at_data(config, most, options.samples, None if options.sheet is None else Path(options.sheet).expanduser())


def command() -> None:
    """Entry of the console script."""
    sys.exit(run_command(main))
