"""The things that a caption names, and whether they are those of the references."""

from __future__ import annotations

import re
from collections import Counter
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
    """1 if a caption names exactly the things that the references name, no more and no less; else 0.

    How often it names them, how many it says there are, and where, does not count.
    """
    return float(named_things(caption) == frozenset().union(*map(named_things, references)))


def marked_names(caption: str, references: Sequence[str]) -> tuple[list[tuple[str, bool | None]], list[str]]:
    """The words of a caption, each with whether it names a thing rightly, and the things that it does not name.

    A thing is named rightly if the references name it, and name it so often: "a fox and a fox" is right once where they
    say "a fox". None = a word that names nothing.

    Example:
        >>> marked_names("a fox, fox", ["a fox above a dog"])
        ([('a', None), ('fox,', True), ('fox', False)], ['dog'])
    """
    names, pattern = _names()
    counts = [Counter(names[name] for name in pattern.findall(text.lower())) for text in references]
    left = {name: max(count[name] for count in counts) for name in sorted(frozenset().union(*counts))}
    missing = sorted(left.keys() - named_things(caption))
    named = []
    for match in pattern.finditer(caption.lower()):
        name = names[match[0]]
        named.append((match.span(), left.get(name, 0) > 0))
        left[name] = left.get(name, 0) - 1
    words = [
        (word[0], next((fits for (start, end), fits in named if start < word.end() and word.start() < end), None))
        for word in re.finditer(r"\S+", caption)
    ]
    return words, missing


@lru_cache(maxsize=1)
def _names() -> tuple[dict[str, str], re.Pattern[str]]:
    names = {name: concept.name for concept in load_concepts() for name in (concept.name, concept.plural)}
    longest_first = sorted(names, key=len, reverse=True)
    return names, re.compile(rf"\b(?:{'|'.join(map(re.escape, longest_first))})\b")
