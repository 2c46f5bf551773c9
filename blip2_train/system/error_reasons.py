"""Errors of other libraries as a reason in one line."""

from __future__ import annotations

import re

_NAMED = re.compile(r"GLOBAL ([\w.<>]+)|globals: ([\w.<>]*\w)|(?:got|function) <\w+ '?([\w.]+)")
_PICKLE = re.compile(r"weights_only|WeightsUnpickler|safe_globals|Weights only load failed|allowlist", re.IGNORECASE)


def reason_of(error: BaseException | str, length: int = 150) -> str:
    """The reason that an error gives, in one line of at most `length` characters; its kind if it gives none.

    A refused pickle is reported as that; torch's and timm's own messages explain how to load it nevertheless, which
    would run what it names.

    Example:
        >>> reason_of(ValueError("two lines, " + chr(10) + "  made one")), reason_of(KeyError())
        ('two lines, made one', 'KeyError')
        >>> reason_of("one that is cut, but at no letter", 25)
        'one that is cut, but at …'
    """
    text = str(error)
    if _PICKLE.search(text):
        return _refused(text)
    line = " ".join(text.split())
    if len(line) > length:
        whole_words = line[: length - 1].rpartition(" ")[0]
        line = f"{whole_words} …" if len(whole_words) > length // 2 else f"{line[: length - 1]}…"
    return line or type(error).__name__


def is_refused_pickle(error: BaseException) -> bool:
    """Whether an error is a refused pickle that names something to call."""
    return bool(_PICKLE.search(str(error)) and _NAMED.search(str(error)))


def _refused(text: str) -> str:
    named = _NAMED.search(text)
    if named is None:
        return "it is a pickle of other things than tensors and plain values, or damaged"
    name = next(filter(None, named.groups()))
    return f"it is a pickle that names {name}, which would be called: refused, only tensors and plain values are read"
