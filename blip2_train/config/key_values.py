"""Reads `key=value` arguments into dataclasses: every key is known, every value fits its field."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import MISSING, fields
from typing import Any, get_type_hints

import yaml

from blip2_train.config.value_types import misfit, nearest
from blip2_train.errors import ConfigError


def read_settings(arguments: Sequence[str], kinds: Sequence[type], script: str, lists: Collection[str] = ()) -> Any:
    """An object of each kind, from `key=value` arguments in any order.

    Args:
        arguments: As on the command line.
        kinds: Dataclasses without a field in common; `source` may be `[a,b]` or one name, whatever that looks like.
        script: That has `--help`.
        lists: Fields that are lists also without brackets.

    Raises:
        ConfigError: if a setting is unknown, missing, given twice, or has a value that cannot be used.
    """
    known = {field.name: get_type_hints(kind)[field.name] for kind in kinds for field in fields(kind)}
    given: dict[str, Any] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if name not in known:
            advice = f"did you mean {close!r}?" if (close := nearest(name, known)) else f"known: {', '.join(known)}"
            raise ConfigError(f"there is no setting {name!r}; {advice}")
        if not equals or not text:
            raise ConfigError(f"{name} has no value; write {name}=<value>")
        if name in given:
            raise ConfigError(f"{name} is given twice; give it once")
        given[name] = _value(name, text, known[name], lists)
    for kind in kinds:
        for field in fields(kind):
            if field.default is MISSING and field.name not in given:
                raise ConfigError(f"{field.name}= is missing; see python scripts/{script} --help")
    own = [{field.name for field in fields(kind)} for kind in kinds]
    return tuple(
        kind(**{name: value for name, value in given.items() if name in names})
        for kind, names in zip(kinds, own, strict=True)
    )


def _value(name: str, text: str, annotation: Any, lists: Collection[str]) -> Any:
    if name == "source" or name in lists:
        if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":  # quoted twice, as train.py needs it
            text = text[1:-1]
        bare = text.removeprefix("[").removesuffix("]")
        return [item.strip() for item in bare.split(",")] if name in lists or bare != text else text
    if misfit(text, annotation) is None:
        return None if text == "null" and misfit(None, annotation) is None else text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    if (expected := misfit(value, annotation)) is not None:
        raise ConfigError(f"{name}={text}: expected {expected}")
    return value
