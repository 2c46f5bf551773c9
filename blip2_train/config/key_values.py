"""Reads a command's own `key=value` settings into dataclasses: every key is known, every value fits its field.

The grammar is that of the configuration (`parse_setting`): numbers, `true`, `false`, `null`, lists in brackets. In two
ways it is more lenient, as the field's type shows what is meant: a text is taken as it is written, whatever signs it
holds, and a list may lack its brackets.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from blip2_train.config.overrides import parse_setting
from blip2_train.config.run_config import RunConfig
from blip2_train.config.value_types import misfit, nearest
from blip2_train.errors import ConfigError

READ = "read"
"""Key of a field's metadata: a function that makes the value from its text, for values with a form of their own."""
_LISTS = (list, tuple, Sequence)
_TOP = {field.name for field in fields(RunConfig)}
Kind = TypeVar("Kind")


def read_settings(arguments: Sequence[str], kinds: Sequence[type], command: str) -> Any:
    """An object of each kind, from `key=value` arguments in any order.

    Args:
        arguments: As on the command line.
        kinds: Dataclasses without a field in common.
        command: How the command is called, for messages: it has `--help`.

    Raises:
        ConfigError: if a setting is unknown, missing, given twice, or has a value that cannot be used.
    """
    known = [field.name for kind in kinds for field in fields(kind)]
    names = [argument.partition("=")[0] for argument in arguments]
    for name in names:
        if name not in known:
            close = nearest(name, known)
            advice = f"did you mean {close!r}?" if close else f"known: {', '.join(known)}"
            raise ConfigError(f"there is no setting {name!r}; {advice}")
        if names.count(name) > 1:
            raise ConfigError(f"{name} is given twice; give it once")
    objects, rest = [], list(arguments)
    for kind in kinds:
        values, rest = _take(rest, kind, ())
        for field in fields(kind):
            if field.default is MISSING and field.default_factory is MISSING and field.name not in values:
                raise ConfigError(f"{field.name}= is missing; see {command} --help")
        objects.append(kind(**values))
    return tuple(objects)


def split_settings(
    arguments: Sequence[str],
    kind: type[Kind],
    usual: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
    without: Collection[str] = (),
) -> tuple[Kind, list[str]]:
    """A command's own settings, taken out of a command line that otherwise holds those of a configuration.

    As of the configuration's keys, of two values of one setting the later counts.

    Args:
        arguments: As on the command line.
        kind: Dataclass of the own settings.
        usual: Values of fields that are not given, from those that are; where they depend on each other.
        without: Fields that are no settings.

    Returns:
        The settings, and the arguments that belong to the configuration.

    Raises:
        ConfigError: if one has a value that cannot be used, or a key that the configuration does not have resembles
            one.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Options:
        ...     rows: int = 3
        >>> split_settings(["rows=5", "optim.lr=1e-4"], Options)
        (Options(rows=5), ['optim.lr=1e-4'])
    """
    values, rest = _take(arguments, kind, without)
    names = [field.name for field in fields(kind) if field.name not in without]  # type: ignore[arg-type]
    for argument in rest:
        name = argument.partition("=")[0].lstrip("+~")
        if name not in _TOP and "." not in name and (close := nearest(name, names, 0.8)):
            raise ConfigError(f"there is no setting {name!r}; did you mean {close!r}?")
    return kind(**{**({} if usual is None else usual(values)), **values}), rest


def flags_as_settings(arguments: Sequence[str], flags: Mapping[str, str]) -> list[str]:
    """The arguments with flags written as settings.

    Args:
        arguments: As on the command line.
        flags: Setting of each flag; one that ends in `=` takes the flag's value.

    Example:
        >>> flags_as_settings(["--all", "--samples", "5"], {"--all": "all=true", "--samples": "samples="})
        ['all=true', 'samples=5']
    """
    settings, rest = [], iter(arguments)
    for argument in rest:
        flag, equals, value = argument.partition("=")
        setting = flags.get(flag)
        if setting is None:
            settings.append(argument)
        elif setting.endswith("="):
            settings.append(setting + (value if equals else next(rest, "")))
        elif equals:
            raise ConfigError(f"{flag} takes no value; write {flag}, or {setting}")
        else:
            settings.append(setting)
    return settings


def _take(arguments: Sequence[str], kind: Any, without: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    """Values of those fields of a dataclass that arguments give, and the other arguments."""
    own = {field.name: field for field in fields(kind) if field.name not in without}
    annotations = get_type_hints(kind)
    values: dict[str, Any] = {}
    rest = []
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if name not in own:
            rest.append(argument)
            continue
        if not equals or not text:
            raise ConfigError(f"{name} has no value; write {name}=<value>")
        read = own[name].metadata.get(READ)
        values[name] = read(text) if read else _value(name, text, annotations[name])
    return values, rest


def _value(name: str, text: str, annotation: Any) -> Any:
    """What a text means for a field."""
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    arms = typing.get_args(annotation) if union else (annotation,)
    lists = [arm for arm in arms if typing.get_origin(arm) in _LISTS]
    bracketed = text.startswith("[") and text.endswith("]")
    is_text = misfit(text, annotation) is None
    if text == "null" and misfit(None, annotation) is None:
        return None
    if lists and (bracketed or not is_text):
        items = text[1:-1] if bracketed else text
        each = typing.get_args(lists[0])[0]
        values = [_value(name, item.strip(), each) for item in items.split(",")] if items.strip() else []
        return tuple(values) if typing.get_origin(lists[0]) is tuple else values
    if is_text:
        if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":  # quoted twice, as the configuration needs it
            text = text[1:-1]
        return Path(text).expanduser() if Path in arms else text
    try:
        value = parse_setting(f"{name}={text}").value()
    except ConfigError:
        value = text
    if (expected := misfit(value, annotation)) is not None:
        raise ConfigError(f"{name}={text}: expected {expected}")
    return float(value) if isinstance(value, int) and float in arms and int not in arms else value
