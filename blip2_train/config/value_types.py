"""Whether a value of a configuration fits a type annotation."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

_SCALARS: dict[Any, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "a text"),
    Path: ((str,), "a path"),
    type(None): ((type(None),), "null"),
}
_SETTINGS = "a mapping with _target_ (an option is chosen by group=option, in a recipe by `override /group: option`)"
_LISTS = (list, tuple, set, frozenset, Sequence, Iterable, Collection)


def misfit(value: Any, annotation: Any) -> str | None:
    """What was expected instead of `value`, or None if it fits or the annotation cannot be judged.

    Args:
        value: As in YAML: null, true/false, numbers, texts, lists, mappings. A mapping that builds an object (with
            `_target_`) is judged by `builds_misfit`.
        annotation: Resolved annotation of a parameter or field.

    Example:
        >>> misfit("1e-4x", float), misfit(2, float), misfit(None, int | None), misfit(0.9, tuple[float, float])
        ('a number', None, None, 'a list of 2 values')
    """
    if annotation is Any:
        return None
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        choices = tuple(c for arm in arguments if typing.get_origin(arm) is Literal for c in typing.get_args(arm))
        misfits = [misfit(value, arm) for arm in arguments if typing.get_origin(arm) is not Literal]
        misfits += [misfit(value, Literal[choices])] if choices else []
        return None if None in misfits else " or ".join(dict.fromkeys(m for m in misfits if m))
    if origin is Literal:
        return None if any(value == a and type(value) is type(a) for a in arguments) else _one_of(value, arguments)
    if annotation in _SCALARS:
        accepted, expected = _SCALARS[annotation]
        return None if isinstance(value, accepted) and (annotation is bool or not isinstance(value, bool)) else expected
    if (origin or annotation) in _LISTS:
        return _list_misfit(value, origin or annotation, arguments)
    if (origin or annotation) in (dict, Mapping):
        return None if isinstance(value, dict) else "a mapping"
    if isinstance(annotation, type) and annotation is not object:
        return None if isinstance(value, dict) and "_target_" in value else _SETTINGS
    return None


def builds_misfit(built: Callable[..., Any], annotation: Any) -> str | None:
    """What was expected instead of the object that `built` makes; None if it fits or cannot be judged."""
    arms = (
        typing.get_args(annotation)
        if typing.get_origin(annotation) in (typing.Union, types.UnionType)
        else (annotation,)
    )
    classes = [arm for arm in arms if dataclasses.is_dataclass(arm)]
    if (
        len(classes) != len([arm for arm in arms if arm is not type(None)])
        or not isinstance(built, type)
        or not classes
    ):
        return None
    if any(issubclass(built, c) for c in classes if isinstance(c, type)):
        return None
    return " or ".join(getattr(c, "__name__", str(c)) for c in classes)


def nearest(word: str, known: Iterable[str], likeness: float = 0.55) -> str | None:
    """The known word that looks most like `word`, if any is at least `likeness` (0 … 1) alike."""
    close = difflib.get_close_matches(word, sorted(known), n=1, cutoff=likeness)
    return close[0] if close else None


def _list_misfit(value: Any, kind: Any, arguments: tuple[Any, ...]) -> str | None:
    fixed = kind is tuple and arguments and arguments[-1] is not Ellipsis
    expected = f"a list of {len(arguments)} values" if fixed else "a list"
    if not isinstance(value, list) or (fixed and len(value) != len(arguments)):
        return expected
    inner = arguments if fixed else (arguments[0] if arguments else Any,) * len(value)
    return next((f"a list, each {m}" for v, a in zip(value, inner, strict=True) if (m := misfit(v, a))), None)


def _one_of(value: Any, choices: Sequence[Any]) -> str:
    close = nearest(value, [c for c in choices if isinstance(c, str)]) if isinstance(value, str) else None
    listed = "one of " + ", ".join(dict.fromkeys(str(choice) for choice in choices))
    return listed + (f" (did you mean {close}?)" if close else "")
