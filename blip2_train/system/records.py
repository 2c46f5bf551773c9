"""JSON and YAML of others as typed values: one entry, at which anything that does not fit is an error of one line.

Kinds are dataclasses, `msgspec.Struct`s, or annotations such as `dict[str, Any]`; nothing is turned from one type into
another, except whole numbers into floats and lists into tuples.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import yaml

from blip2_train.errors import Blip2TrainError, CheckpointMismatch
from blip2_train.system.error_reasons import reason_of

DEEPEST = 64
"""Lists and mappings inside each other."""
_MOST_REPEATED = 1000
_LARGEST_NUMBER = 2**63 - 1
_LARGEST_NOTED = 2**128
"""Of numbers that nothing is computed with: transformers writes 10^30 as the length of a text without bound."""
Count = Annotated[int, msgspec.Meta(ge=0, le=_LARGEST_NUMBER)]
"""An integer from 0."""
Size = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
"""An integer from 1, for which memory is allocated."""
JsonObject = dict[str, Any]
T = TypeVar("T")


def read_record(
    path: Path, kind: type[T], fix: str, error: type[Blip2TrainError] = CheckpointMismatch, closed: bool = False
) -> T:
    """The content of a JSON file.

    Args:
        path: The file.
        kind: Type of the content.
        fix: The remedy, the end of the message.
        error: Class of the error.
        closed: Whether fields that the kind does not have are refused.

    Raises:
        Blip2TrainError: `error`, naming the file and the field.
    """
    try:
        content = path.read_bytes()
    except OSError as cause:
        raise error(f"{path} cannot be read ({cause.strerror or cause}); {fix}") from cause
    return parse_record(content, kind, path, fix, error, closed)


def parse_record(
    content: str | bytes | bytearray | memoryview,
    kind: type[T],
    what: object,
    fix: str,
    error: type[Blip2TrainError] = CheckpointMismatch,
    closed: bool = False,
) -> T:
    """JSON text as typed values; `what` is its source, for messages; the rest as for `read_record`."""
    return check_record(_parse(content, what, fix, error), kind, what, fix, error, closed)


def check_record(
    value: Any,
    kind: type[T],
    what: object,
    fix: str,
    error: type[Blip2TrainError] = CheckpointMismatch,
    closed: bool = False,
) -> T:
    """Plain values as typed ones; arguments and errors as for `parse_record`."""
    typed = is_dataclass(kind) or hasattr(kind, "__struct_fields__")
    if (fault := _not_plain(value, _LARGEST_NUMBER if typed else _LARGEST_NOTED)) is not None:
        raise error(f"{what} cannot be read ({fault}); {fix}")
    unknown = _unknown(value, kind) if closed else []
    if unknown:
        raise error(f"{what} cannot be read (unknown field {unknown[0]!r}); {fix}")
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError, OverflowError, UnicodeError) as cause:  # half a character, as key
        raise error(f"{what} cannot be read ({_field_first(str(cause))}); {fix}") from None
    except Blip2TrainError as cause:  # of a dataclass that checks its own values
        raise error(f"{what} cannot be read ({cause}); {fix}") from None


def parse_yaml(text: str, what: object, fix: str, error: type[Blip2TrainError] = CheckpointMismatch) -> JsonObject:
    """A configuration as YAML text: a mapping of plain values, each written out.

    Anchors, tags that make objects, and interpolations (`${…}`, which could name environment variables) are refused.

    Raises:
        Blip2TrainError: `error`, naming `what`.
    """
    if "${" in text:
        line = text[: text.index("${")].count("\n") + 1
        raise error(f"{what} cannot be read (line {line} holds an interpolation, ${{…}}, which is not resolved); {fix}")
    try:
        content = _PlainLoader(text).get_single_data()
    except RecursionError:
        raise error(f"{what} cannot be read (lists or mappings are nested too deep); {fix}") from None
    except (yaml.YAMLError, ValueError) as cause:
        raise error(f"{what} cannot be read ({reason_of(cause)}); {fix}") from None
    return check_record(content, JsonObject, what, fix, error)


class _PlainLoader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):  # a few of them may stand for billions of values
            raise yaml.YAMLError("it refers to other places of itself by *")
        return super().compose_node(parent, index)


def _parse(content: Any, what: object, fix: str, error: type[Blip2TrainError]) -> Any:
    try:
        return json.loads(bytes(content) if isinstance(content, memoryview) else content)
    except RecursionError:
        raise error(f"{what} cannot be read (lists or mappings are nested too deep); {fix}") from None
    except ValueError as cause:  # also what is not UTF-8, and numbers of more digits than Python reads
        reason = "a number of thousands of digits" if "digits" in str(cause) else str(cause)[:150]
        raise error(f"{what} cannot be read ({reason}); {fix}") from None


def _not_plain(value: Any, largest: int) -> str | None:
    """Why a value is none that JSON holds, or none that is sound; None if it is."""
    left: list[tuple[Any, int, str]] = [(value, 0, "")]
    seen: set[int] = set()
    again = 0
    while left:
        item, depth, location = left.pop()
        if isinstance(item, Mapping | list | tuple):  # in a pickle, a few of them may stand for billions
            again += id(item) in seen
            seen.add(id(item))
            if again > _MOST_REPEATED:
                return "it refers to other places of itself again and again"
        if depth > DEEPEST:
            return f"{location[:60]}…: lists or mappings are nested more than {DEEPEST} deep"
        if isinstance(item, Mapping):
            if wrong := next((key for key in item if not isinstance(key, str)), None):
                return f"{location or 'the file'}: the key {wrong!r} is no text"
            left += [(inner, depth + 1, f"{location}.{key}" if location else key) for key, inner in item.items()]
        elif isinstance(item, list | tuple):
            left += [(inner, depth + 1, f"{location}[{number}]") for number, inner in enumerate(item)]
        elif isinstance(item, int) and not isinstance(item, bool):
            if not -largest <= item <= largest:
                return f"{location or 'the file'}: a whole number of {len(f'{item:x}') * 4} bits"
        elif not (item is None or isinstance(item, bool | float | str)):
            return f"{location or 'the file'}: {type(item).__name__} is no plain value"
    return None


def _unknown(value: Any, kind: Any) -> list[str]:
    known = getattr(kind, "__struct_fields__", ())
    if is_dataclass(kind):
        known = tuple(field.name for field in fields(kind) if field.init)
    return [key for key in value if key not in known] if isinstance(value, Mapping) else []


def _field_first(message: str) -> str:
    """Msgspec's message with the field in front.

    Example:
        >>> _field_first("Expected `int`, got `str` - at `$.shards[0].bytes`")
        'shards[0].bytes: expected int, got str'
    """
    reason, _, location = message.replace("`", "").partition(" - at ")
    reason = reason[:1].lower() + reason[1:]
    field = location.removeprefix("key in ").removeprefix("$").removeprefix(".")
    return f"{field}: {reason}" if field else reason
