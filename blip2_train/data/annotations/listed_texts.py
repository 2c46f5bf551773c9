"""Lists of texts that were written into one text, as tables of lists are saved."""

from __future__ import annotations

import ast
import io
import json
import tokenize

_NOTHING = {"None", "null", "nan", "NaN"}


def listed_texts(text: str) -> list[str | None] | None:
    """The texts of a list that is written as one text, None where it has none; None if this is no such list.

    JSON, the form in which Python writes a list, and that of NumPy (no commas). Nothing is executed.

    Example:
        >>> listed_texts('["a cat", null]'), listed_texts("['a cat' 'a dog']"), listed_texts("[sic] a cat")
        (['a cat', None], ['a cat', 'a dog'], None)
    """
    stripped = text.strip()
    if not (stripped.startswith("[") and stripped.endswith("]")):
        return None
    try:
        found = json.loads(stripped)
    except (ValueError, RecursionError):
        found = _literals(stripped)
    if not isinstance(found, list) or not all(one is None or isinstance(one, str) for one in found):
        return None
    return found


def _literals(text: str) -> list[object] | None:
    """The literals of a list in Python's or NumPy's form, each read by itself."""
    try:
        tokens = [token for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.string.strip()]
        inner = [token for token in tokens[1:-1] if token.string != ","]
        kinds = [(token.type, token.string in _NOTHING) for token in inner]
        if not all(kind == tokenize.STRING or nothing for kind, nothing in kinds):
            return None
        return [None if token.string in _NOTHING else ast.literal_eval(token.string) for token in inner]
    except (ValueError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError):
        return None
