"""Turns valid files into files that are wrong in one way or some: other types, other structure, other bytes."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

_MARKS = {"@@digits@@": "1" * 5000, "@@deep@@": "[" * 5000 + "]" * 5000, "@@half@@": "[" * 3000, "@@float@@": "1e999"}
"""Texts that stand for JSON which Python's own writer does not write."""
TEXTS = (
    "",
    " \n\t",
    "a\nb\r\nc",
    "\x00",
    "\x1b[2J\x1b]0;x\x07",
    "\u202e\u2066abc",
    "\ud83d",
    "é\u0301\u200d\ufeff",
    "𝔘" * 40,
    "x" * 20_000,
    "../../outside",
    "/etc/passwd",
    "${oc.env:HOME}",
    "!!python/object/apply:os.getcwd []",
    "https://example.org/a\nb",
    "NaN",
    "-1",
    "true",
    "null",
    "a.b.c",
    "{0..9999999999}",
    "%s%n{}",
)
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 7, 2**31, 2**63, 2**64, -(2**70), 10**300, 0.5, -0.0, 1e308, 1e-320,
    float("nan"), float("inf"), [], {}, [[]], [None], [{}], {"": None}, {"a": {"b": {"c": []}}}, ["a", 1, None],
    [[1, 2], [3]], *_MARKS,
)  # fmt: skip


def mutated(content: bytes, random: Random, structured: bool) -> bytes:
    """One of many changes of a file; JSON is changed by its structure more often than by its bytes."""
    if structured and random.random() < 0.75:
        changed = _other_structure(content, random)
        if changed is not None:
            content = changed
            if random.random() < 0.8:
                return content
    for _ in range(random.choice((1, 1, 1, 2, 5, 20))):
        content = random.choice(_BYTE_CHANGES)(content, random)
    return content


def _other_structure(content: bytes, random: Random) -> bytes | None:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    lines = text.splitlines() if text.count("\n") > 1 and text.lstrip()[:1] in "{[" and _is_json_lines(text) else None
    if lines is None:
        try:
            value = json.loads(text)
        except ValueError:
            return None
        for _ in range(random.choice((1, 1, 1, 2, 4))):
            value = _changed(value, random)
        written = _written(value, random)
    else:
        number = random.randrange(len(lines))
        lines[number] = _written(_changed(json.loads(lines[number]), random), random)
        if random.random() < 0.2:
            lines.insert(random.randrange(len(lines)), random.choice(("", "null", "[]", "7", "{", '"a"', lines[0])))
        written = "\n".join(lines)
    return written.encode(errors="surrogatepass")


def _is_json_lines(text: str) -> bool:
    try:
        return all(isinstance(json.loads(line), dict) for line in text.splitlines())
    except ValueError:
        return False


def _written(value: Any, random: Random) -> str:
    text = json.dumps(value, ensure_ascii=random.random() < 0.7)
    for mark, stands_for in _MARKS.items():
        text = text.replace(json.dumps(mark), stands_for)
    return text


def _changed(value: Any, random: Random) -> Any:
    """The value with one entry changed; the value itself is used up."""
    positions = list(_positions(value))
    if not positions:
        return _value(random)
    parent, key = random.choice(positions)
    what = random.randrange(8)
    if what == 0:
        del parent[key]
    elif what == 1 and isinstance(parent, dict):
        parent[random.choice((*TEXTS, "class", "_target_", "auto_map", key + "s"))] = _value(random)
    elif what == 1:
        parent.insert(key, _value(random))
    elif what == 2 and isinstance(parent, dict):
        parent[random.choice(TEXTS)] = parent.pop(key)
    elif what == 3:
        parent[key] = [parent[key]] if random.random() < 0.5 else {"a": parent[key]}
    elif what == 4 and isinstance(parent[key], int | float):
        parent[key] = parent[key] * random.choice((-1, 0, 1.5, 2**40, 10**30)) + random.choice((0, 1, -1))
    elif what == 5 and isinstance(parent[key], str):
        parent[key] = random.choice((parent[key] + random.choice(TEXTS), parent[key][: len(parent[key]) // 2]))
    elif what == 6:
        other, name = random.choice(positions)
        parent[key] = json.loads(json.dumps(other[name]))
    else:
        parent[key] = _value(random)
    return value


def _value(random: Random) -> Any:
    return random.choice(TEXTS) if random.random() < 0.4 else copy.deepcopy(random.choice(VALUES))


def _positions(value: Any) -> Any:
    """Each key and index within, with what holds it."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _positions(value[key])


def _flip(content: bytes, random: Random) -> bytes:
    if not content:
        return b"\0"
    at = random.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << random.randrange(8)]) + content[at + 1 :]


def _cut(content: bytes, random: Random) -> bytes:
    return content[: random.randrange(len(content) + 1)]


def _insert(content: bytes, random: Random) -> bytes:
    at = random.randrange(len(content) + 1)
    new = random.choice(
        (random.randbytes(random.randrange(1, 40)), random.choice(TEXTS).encode(errors="surrogatepass"))
    )
    return content[:at] + new + content[at:]


def _remove(content: bytes, random: Random) -> bytes:
    at = random.randrange(len(content) + 1)
    return content[:at] + content[at + random.randrange(1, 600) :]


def _repeat(content: bytes, random: Random) -> bytes:
    at = random.randrange(len(content) + 1)
    return content[:at] + content[at : at + random.randrange(1, 2000)] * 2 + content[at + 2000 :]


def _overwrite(content: bytes, random: Random) -> bytes:
    at, new = random.randrange(len(content) + 1), random.randbytes(random.randrange(1, 12))
    return content[:at] + new + content[at + len(new) :]


def _digits(content: bytes, random: Random) -> bytes:
    """A digit replaced by another number."""
    positions = [at for at, byte in enumerate(content[:20_000]) if 48 <= byte < 58]
    if not positions:
        return _flip(content, random)
    at = random.choice(positions)
    return content[:at] + random.choice((b"9", b"0", b"-", b"99999999999", b"x", b"1e9")) + content[at + 1 :]


_BYTE_CHANGES = (_flip, _flip, _cut, _insert, _remove, _repeat, _overwrite, _digits)
