"""One entry of an annotation file, whose fields are checked before they are used."""

from __future__ import annotations

import ast
import io
import json
import reprlib
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blip2_train.errors import ShardError

_NOTHING = {"None", "null", "nan", "NaN"}


def listed_texts(text: str) -> list[str | None] | None:
    """The items of a list that is written as one text, with None for nulls; None if the text is no such list.

    The list may be JSON, in Python's form, or in NumPy's (without commas). Nothing is executed.

    Example:
        >>> listed_texts('["a cat", null]'), listed_texts("['a cat' 'a dog']"), listed_texts("[sic] a cat")
        (['a cat', None], ['a cat', 'a dog'], None)
    """
    stripped = text.strip()
    if not (stripped.startswith("[") and stripped.endswith("]")):
        return None
    try:
        values = json.loads(stripped)
    except (ValueError, RecursionError):
        values = _literals(stripped)
    if not isinstance(values, list) or not all(one is None or isinstance(one, str) for one in values):
        return None
    return values


def _literals(text: str) -> list[object] | None:
    """The items of a list in Python's or NumPy's form, each parsed as a literal."""
    try:
        tokens = [token for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.string.strip()]
        inner = [token for token in tokens[1:-1] if token.string != ","]
        kinds = [(token.type, token.string in _NOTHING) for token in inner]
        if not all(kind == tokenize.STRING or nothing for kind, nothing in kinds):
            return None
        return [None if token.string in _NOTHING else ast.literal_eval(token.string) for token in inner]
    except (ValueError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError):
        return None


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlist, _SHORT.maxdict = 2, 60, 60, 3, 2


def short_repr(value: Any) -> str:
    """A value for a message, shortened for any length and depth."""
    return _SHORT.repr(value)


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a JSON list, a line, or a row of a table.

    Args:
        file: for messages.
        where: for messages: `entry 3 of images`, `line 12`.
        values: its fields.
        strict: whether every value must be present. If not, a text that is null is blank: it is no sample, and counted.
        form: expected form of an entry, for messages.
    """

    file: str | Path
    where: str
    values: Mapping[str, Any]
    strict: bool
    form: str

    def fault(self, what: str) -> ShardError:
        """An error with the file and the entry."""
        return ShardError(f"{self.file}, {self.where}: {what}; expected {self.form}")

    def first_of(self, names: Sequence[str]) -> str | None:
        """The first of these fields that the entry has, preferably one that is not null."""
        null = None
        for name in names:
            if name in self.values:
                if self.values[name] is not None:
                    return name
                null = null or name
        return null

    def value(self, field: str) -> Any:
        """The value of a field.

        Raises:
            ShardError: if the entry has no such field.
        """
        if field not in self.values:
            raise self.fault(f"lacks {field!r}")
        return self.values[field]

    def text(self, field: str) -> str:
        """The text of a field; blank for null unless strict.

        Raises:
            ShardError: if it is no text.
        """
        value = self.value(field)
        if value is None and not self.strict:
            return ""
        if not isinstance(value, str):
            raise self.fault(f"{field} {short_repr(value)} is no text")
        return value

    def text_or_number(self, field: str) -> str:
        """The text of a field, with a number converted to text; see `text`."""
        value = _as_text(self.value(field))
        return value if isinstance(value, str) else self.text(field)

    def name(self, field: str) -> str:
        """The text of a field that must not be blank.

        Raises:
            ShardError: if it is no text, or blank.
        """
        value = self.value(field)
        if not isinstance(value, str) or not value.strip():
            raise self.fault(f"{field} {short_repr(value)} is no name")
        return value

    def texts(self, field: str, *, numbers: bool = False) -> tuple[str, ...]:
        """The texts of a field: one text, a list of texts, or a list written as one text, as in tables.

        Nulls in a list are skipped; null instead of a text or list is an empty result, unless strict.

        Args:
            field: name of the field.
            numbers: whether numbers are converted to text, as for answers.
        """
        value = self.value(field)
        if value is None and not self.strict:
            return ()
        if isinstance(value, str) and (listed := listed_texts(value)) is not None:
            value = listed
        values = [one for one in value if one is not None] if isinstance(value, list) else [value]
        if numbers:
            values = [_as_text(one) for one in values]
        if not all(isinstance(one, str) for one in values) or (self.strict and value and not values):
            raise self.fault(f"{field} is {short_repr(value)}; write a text, or a list of texts")
        return tuple(values)

    def identity(self, field: str) -> int | str:
        """The identity of an image, a question or a caption: an integer or a text.

        Raises:
            ShardError: if it is neither.
        """
        value = self.value(field)
        if type(value) is int:
            return value
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if not isinstance(value, str) or not value.strip():
            raise self.fault(f"{field} {short_repr(value)} is neither number nor text")
        return value

    def kind(self, field: str) -> str:
        """The category in a field, for counts; empty if there is none."""
        value = self.values.get(field)
        return value if isinstance(value, str) else ""

    def entries(self, field: str) -> Iterator[Entry]:
        """The entries of a list within this one.

        Raises:
            ShardError: if there is no list of entries.
        """
        value = self.value(field)
        if not isinstance(value, list):
            raise self.fault(f"{field} {short_repr(value)} is no list")
        for position, one in enumerate(value, 1):
            if not isinstance(one, dict):
                raise self.fault(f"{field} {position} is {short_repr(one)}, no object")
            yield Entry(self.file, f"{self.where}, {field} {position}", one, self.strict, self.form)


def _as_text(value: Any) -> Any:
    """A number as text, a whole one without a decimal point; any other value unchanged."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return str(int(value)) if value == value // 1 else str(value)
