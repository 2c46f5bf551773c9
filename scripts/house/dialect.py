"""The words that the glossary of CONTRIBUTING.md rules out, and where they are right all the same, as data."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """A word that is not to be used."""

    word: str
    """Parts of an identifier, lower case, joined by `_`; or what a match in prose is counted as."""
    write: str
    """What is written in its place."""
    below: tuple[str, ...] = ()
    """Beginnings of the paths in which it is ruled out; everywhere if empty. Elsewhere it is the right word."""


_TEXT_ROOMS = ("blip2_train/models/", "blip2_train/objectives/", "blip2_train/evaluation/")
_ATTENTION = (
    "blip2_train/types.py",
    "blip2_train/objectives/",
    *(f"blip2_train/models/{name}" for name in ("attention", "qformer", "query_attention", "image_text", "base")),
)

NAMES = (
    Rule("said", "generated, captions, text"),
    Rule("says", "text, message, states"),
    Rule("told", "reported, logged, printed"),
    Rule("asked", "prompts, questions, requested"),
    Rule("wanted", "expected, requested"),
    Rule("found", "matches, result, records"),
    Rule("picture", "image"),
    Rule("pictures", "images"),
    Rule("piece", "token, chunk, block, part"),
    Rule("pieces", "tokens, chunks, blocks, parts"),
    Rule("story", "generation, demo"),
    Rule("stories", "generations, demos"),
    Rule("saying", "generation"),
    Rule("sayings", "generations"),
    Rule("drawing", "sampling", _TEXT_ROOMS),
    Rule("writing", "generation", _TEXT_ROOMS),
    Rule("divided", "sharded"),
    Rule("handover", "load_rules"),
    Rule("lost_contact", "timeout"),
    Rule("whole_file", "atomic_write"),
    Rule("place", "position, location, path"),
    Rule("places", "positions, locations, paths"),
    Rule("memory", "image_kv", _ATTENTION),
    Rule("memories", "image_kvs"),
    Rule("image_memory", "image_kv"),
)
"""Ruled out in identifiers, which are split at `_` and where a capital letter follows a small one."""

KEPT_NAMES = frozenset(
    (
        "picture_column",
        "picture_name",
        "shuffled_pictures",
        "demo_vqa_shuffled_pictures",
        "picture",  # of an index of shards
        "picture_size",
        "pictures",  # of logs
    )
)
"""Names that users' files, command lines, logs and stored files hold; as strings, too."""

OTHERS = re.compile(
    r"\w*NotFound\w*|not_found|pin_memory|in_place|\w+_in_place|WordPiece\w*|word_?pieces?|SentencePiece\w*|sentencepiece\w*",
    re.I,
)
"""Names of Python, of other packages, and of algorithms."""

PROSE = (
    (Rule("picture", "image"), re.compile(r"(?<![\w./-])pictures?(?![\w=])", re.I)),
    (Rule("lost contact", "timeout"), re.compile(r"\blost contact\b", re.I)),
    (Rule("handover", "load rules"), re.compile(r"\bhandovers?\b", re.I)),
    (Rule("whole file", "atomic write"), re.compile(r"\bwhole-file\b", re.I)),
    (
        Rule("divided", "sharded"),
        re.compile(
            r"\bdivided (?:language )?models?\b|\b(?:model|tower|weights|GPU)\)? (?:(?:that )?is )?divided\b", re.I
        ),
    ),
    (Rule("laboratory", "scripts"), re.compile(r"\blaborator(?:y|ies)\b", re.I)),
    (Rule("story", "generation, demo"), re.compile(r"\bstor(?:y|ies)\b", re.I)),
    (Rule("saying", "generation"), re.compile(r"\bsayings\b", re.I)),
)
"""Ruled out in docstrings, comments, messages, pages and configuration comments: what has no plain meaning there."""

PROSE_PART = re.compile(r"picture|lost|handover|whole-file|divided|laborator|stor(?:y|ies)|sayings", re.I)
"""Part of every match of `PROSE`, within one line: a file without it needs no closer look."""

QUOTED_TEXTS = re.compile(
    r"a picture of"  # the prompt of BLIP and of the demo's recipes
    r"|this \{ground\} picture|things picture pictures"  # captions of the demo, and words of its language models
    r'|"pictures": \[\]'  # a file of others
    r"|held-out picture|unreadable picture"  # values that earlier versions stored
)
"""Texts that stay as they are."""

QUOTED = (
    "CONTRIBUTING.md",  # the glossary
    "scripts/house/",  # this list
    "tests/unit/scripts/house/",
    "blip2_train/assets/",  # the demo's own captions, and names of its images
)
"""Beginnings of paths that name such words to rule them out, or quote others."""
