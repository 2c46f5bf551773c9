"""Lists of texts in one cell are read as the lists they are, other texts stay, and nothing is executed."""

from __future__ import annotations

import json

import pytest

from blip2_train.data.annotations.entry import listed_texts

TEXTS = ['it\'s a "cat"', "two\nlines, [sic]", "\U0001f697 café", ""]


@pytest.mark.parametrize("write", [json.dumps, str, lambda texts: "[" + "\n ".join(map(repr, texts)) + "]"])
def test_lists_come_back(write: object) -> None:
    assert listed_texts(f" {write(TEXTS)}\n") == TEXTS  # type: ignore[operator]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("['a', None, 'b',]", ["a", None, "b"]),
        ('["a", null]', ["a", None]),
        ("['a' nan]", ["a", None]),
        ("[]", []),
        ("[a cat]", None),
        ("['a', 3]", None),
        ("['a', ['b']]", None),
        ("[b'a']", None),
        ("['a'] and ['b']", None),
        ("[sic] a cat", None),
        ("a cat", None),
        ("[", None),
        ("['a'", None),
        ("[__import__('os').system('false')]", None),
        ("['a'.upper()]", None),
        ("[f'{1}']", None),
        ("[" * 50_000 + "]" * 50_000, None),
        ("[1" + "0" * 5000 + "]", None),
    ],
)
def test_what_is_a_list_and_what_is_not(text: str, expected: list[str | None] | None) -> None:
    assert listed_texts(text) == expected
