"""Commands that someone typed as addresses of shards: `data.source="'pipe:cat shards/{000..099}.tar'"`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, QuotedString

from blip2_train.config.overrides import parse_setting
from blip2_train.errors import ConfigError

_PIPE = "pipe:"


def allow_typed_commands(arguments: Sequence[str]) -> None:
    """Let the addresses among the arguments of a command line be run, and no others.

    Args:
        arguments: as they were typed; of a sweep, with all their values.
    """
    if not any(_PIPE in argument for argument in arguments):
        return  # what follows loads the readers of data
    from blip2_train.data.sequential.pipes import allow_commands

    for argument in arguments:
        try:
            value = parse_setting(argument).value() if _PIPE in argument else None
        except ConfigError:
            continue  # reading the arguments reports what is wrong
        allow_commands(address for address in _texts(value) if address.startswith(_PIPE))


def _texts(value: Any) -> Iterator[str]:
    """Every text in the value of an argument."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, QuotedString):
        yield value.text
    elif isinstance(value, ChoiceSweep):
        yield from _texts(value.list)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, dict):
        yield from _texts(list(value.values()))
