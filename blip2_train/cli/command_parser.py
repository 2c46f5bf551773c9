"""The parser of commands with options: a mistake is an error like any other, and help is laid out for reading."""

from __future__ import annotations

import argparse
import difflib
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from blip2_train.cli.command_names import as_called
from blip2_train.errors import ConfigError


class CommandParser(argparse.ArgumentParser):
    """Raises `ConfigError` for a mistake; options are written out in full.

    Args:
        *arguments: As for `ArgumentParser`.
        elsewhere: Options that people know from other commands, and what each is here.
        **options: As for `ArgumentParser`.
    """

    def __init__(self, *arguments: Any, elsewhere: Mapping[str, str] | None = None, **options: Any) -> None:
        super().__init__(*arguments, **(options | {"allow_abbrev": False, "formatter_class": _Help}))
        self.elsewhere = elsewhere or {}

    def parse_known_args(self, *arguments: Any, **options: Any) -> Any:
        """As argparse's; what is left over is a mistake of this parser, also where it belongs to another.

        Raises:
            ConfigError: if anything is left over.
        """
        known, rest = super().parse_known_args(*arguments, **options)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}{self._instead(rest)}")
        return known, rest

    def _instead(self, rest: Sequence[str]) -> str:
        """What to write in the place of the first option of these, if that can be told."""
        wrong = next((name.split("=")[0] for name in rest if name.startswith("--")), "")
        if (known := self.elsewhere.get(wrong.replace("_", "-"))) is not None:
            return f"; here it is {known}"
        options = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
        close = difflib.get_close_matches(wrong, options, 1)
        return f"; did you mean {close[0]}?" if close else ""

    def format_help(self) -> str:
        """The help, with the commands named as they are called here."""
        return as_called(super().format_help())

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and where help is."""
        raise ConfigError(f"{message}; see {self.prog} --help")


class _Help(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the examples; single long lines are wrapped."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=min(110, shutil.get_terminal_size().columns - 2))

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else textwrap.fill(text, width)


def add_output(task: argparse.ArgumentParser, what: str) -> Any:
    """Options for the file that results go to; returns their group.

    Args:
        task: Parser of the command.
        what: What the file is.
    """
    group = task.add_argument_group("output")
    group.add_argument("--output", metavar="FILE", help=f"{what} (default: standard output)")
    group.add_argument("--overwrite", action="store_true", help="replace the file if it is there")
    return group
