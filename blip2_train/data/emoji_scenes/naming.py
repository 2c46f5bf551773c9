"""The things that a caption names, and whether they are those of the references."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from blip2_train.data.emoji_scenes.concepts import load_concepts


def named_things(caption: str) -> frozenset[str]:
    """Names of the world's things in a caption, in the singular; of overlapping names the longest counts.

    Example:
        >>> sorted(named_things("two foxes above a fire engine on orange"))
        ['fire engine', 'fox']
    """
    names, pattern = _names()
    return frozenset(names[name] for name in pattern.findall(caption.lower()))


def names_right(caption: str, references: Sequence[str]) -> float:
    """1 if a caption names exactly the things that the references name, no more and no less; else 0."""
    return float(named_things(caption) == frozenset().union(*map(named_things, references)))


def marked_names(caption: str, references: Sequence[str]) -> list[tuple[str, bool | None]]:
    """The words of a caption, each with whether it names one of the references' things; None = it names nothing.

    Example:
        >>> marked_names("a red Fire Engine and two foxes.", ["two foxes above a boat"])[2:]
        [('Fire', False), ('Engine', False), ('and', None), ('two', None), ('foxes.', True)]
    """
    names, pattern = _names()
    right = frozenset().union(*map(named_things, references))
    named = [(match.span(), names[match[0].lower()] in right) for match in pattern.finditer(caption.lower())]
    return [
        (word[0], next((fits for (start, end), fits in named if start < word.end() and word.start() < end), None))
        for word in re.finditer(r"\S+", caption)
    ]


@lru_cache(maxsize=1)
def _names() -> tuple[dict[str, str], re.Pattern[str]]:
    names = {name: concept.name for concept in load_concepts() for name in (concept.name, concept.plural)}
    longest_first = sorted(names, key=len, reverse=True)
    return names, re.compile(rf"\b(?:{'|'.join(map(re.escape, longest_first))})\b")
