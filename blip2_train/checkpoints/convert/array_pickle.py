"""Reads pickles of NumPy arrays without calling any function that the pickle names.

The few names that such a pickle contains are replaced by stand-ins of this module, which check their arguments.
"""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from blip2_train.errors import CheckpointMismatch
from blip2_train.system.error_reasons import reason_of

Array = np.ndarray[Any, Any]


def read_array_pickle(path: Path) -> Any:
    """The content of a pickle, if it consists of containers, plain values, and arrays of numbers.

    Raises:
        CheckpointMismatch: if it names anything else, which is not called, or is damaged.
    """
    try:
        with open(path, "rb") as file:
            return _arrays_of(_ArrayUnpickler(file).load())
    except Exception as error:  # a damaged pickle fails in any way
        reason = reason_of(error)
        raise CheckpointMismatch(f"{path} cannot be read as a pickle of arrays ({reason})") from error


class _Number:
    """Stand-in for `numpy.dtype`: one kind of number."""

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch(r"[fiu][1248]|b1", code):
            raise pickle.UnpicklingError(f"it holds an array of {code!r}, which is refused: only numbers are read")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stand-in for `numpy.ndarray`; its bytes come with the state."""

    value: Array

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, number, column_major, content = state
        self.value = _from_bytes(content, number, shape, "F" if column_major else "C").value


def _from_bytes(content: Any, number: Any, shape: Any, order: Any) -> _Array:
    """Stand-in for `numpy._frombuffer`."""
    if not isinstance(number, _Number) or not isinstance(content, bytes | bytearray):
        raise pickle.UnpicklingError("it holds an array of other things than numbers, which is refused")
    array = _Array()
    array.value = np.frombuffer(content, number.dtype).reshape(shape, order="F" if order == "F" else "C")
    return array


def _empty(*_: Any) -> _Array:
    """Stand-in for `numpy._reconstruct`, which is followed by the state."""
    return _Array()


def _latin1(text: Any, encoding: Any) -> bytes:
    """Stand-in for `_codecs.encode`, by which old pickles hold bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError(f"it names the encoding {encoding!r}, which is refused")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Stand-in for `bytes`, by which old pickles hold none at all."""
    return b""


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Number,
    ("_codecs", "encode"): _latin1,
    ("collections", "OrderedDict"): OrderedDict,
    ("__builtin__", "bytes"): _no_bytes,
    ("builtins", "tuple"): tuple,
    ("__builtin__", "tuple"): tuple,
} | {
    (f"{core}.{module}", name): stand_in
    for core in ("numpy.core", "numpy._core")
    for module, name, stand_in in (("multiarray", "_reconstruct", _empty), ("numeric", "_frombuffer", _from_bytes))
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name of the pickle."""
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is refused: only arrays are read")
        return _STAND_INS[module, name]


def _arrays_of(content: Any) -> Any:
    if isinstance(content, _Array):
        return content.value
    if isinstance(content, dict):
        return {key: _arrays_of(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_arrays_of(value) for value in content]
    return content
