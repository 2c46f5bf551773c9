"""Cleaning of captions, questions and answers before tokenisation, and the check whether a text is usable."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

from blip2_train.data.rejections import UnusableSample

NOT_UNICODE, EMPTY = "text is not Unicode", "empty caption"
"""Reasons for which texts are rejected."""

_MARKS = re.compile(r"[.!\"()*#:;~]")
_BLANKS = re.compile(r"\s{2,}")
_HALVES = re.compile("[\ud800-\udfff]")
"""Surrogates (halves of characters), which JSON can hold, and with which Python represents bytes that are not UTF-8."""
_INVISIBLE = ("Cc", "Cf")
"""Unicode categories of control and formatting characters, which tokenizers drop or do not know."""


def is_unicode(text: str) -> bool:
    r"""Whether a text can be encoded as UTF-8, as tokenizers, files and Java programs require.

    Example:
        >>> is_unicode("a \U0001f697"), is_unicode("a \ud83d")
        (True, False)
    """
    return _HALVES.search(text) is None


def without_broken_marks(text: str) -> str:
    r"""A text without its surrogates, for scoring, where every text counts and none can be replaced.

    Example:
        >>> without_broken_marks("a red car \ud83d")
        'a red car '
    """
    return _HALVES.sub("", text)


def text_fault(text: str, cleaned: str) -> str | None:
    r"""The reason for which a text is rejected; None if it is usable.

    Control characters beside words are kept: they are Unicode. A text of control characters alone is empty.

    Args:
        text: as written.
        cleaned: the text after cleaning.

    Example:
        >>> text_fault("A car.", "a car"), text_fault("...", ""), text_fault("\x00\u200b", "\x00\u200b")
        (None, 'empty caption', 'empty caption')
    """
    if not is_unicode(text):
        return NOT_UNICODE
    visible = (mark for mark in cleaned if not mark.isspace() and unicodedata.category(mark) not in _INVISIBLE)
    return None if next(visible, None) else EMPTY


def usable_texts(texts: Sequence[str], clean: Callable[[str], str]) -> list[tuple[int, str]]:
    """Index and cleaned text of each usable text.

    Args:
        texts: texts of one sample, as written.
        clean: the cleaning.

    Raises:
        UnusableSample: if no text is usable.
    """
    usable: list[tuple[int, str]] = []
    reasons: list[str] = []
    for index, text in enumerate(texts):
        cleaned = clean(text)
        if (reason := text_fault(text, cleaned)) is None:
            usable.append((index, cleaned))
        else:
            reasons.append(reason)
    if not usable:
        reason = NOT_UNICODE if NOT_UNICODE in reasons else EMPTY
        detail = "it holds half a character" if reason == NOT_UNICODE else "nothing is left after cleaning"
        raise UnusableSample(reason, f"{texts[reasons.index(reason)][:80]!r}: {detail}")
    return usable


def broken_texts(texts: Sequence[str]) -> str:
    r"""A message about the texts of a sample that are not Unicode; empty if all are.

    Example:
        >>> broken_texts(["a car", "a \ud83d"])
        'caption 2 of 2 is left out'
    """
    broken = [str(position) for position, text in enumerate(texts, 1) if not is_unicode(text)]
    return f"caption {', '.join(broken)} of {len(texts)} is left out" if broken else ""


def clean_caption(caption: str, max_words: int = 50) -> str:
    r"""A caption as BLIP-2 trains on it: lower case, ten punctuation marks made blanks, at most `max_words` words.

    Commas, apostrophes, hyphens, question marks, slashes and digits stay. The result may be empty.

    Args:
        caption: text as stored in the data.
        max_words: number of words that are kept, split at single blanks.

    Source: the `blip_caption` processor of BLIP-2's released code (reference: blip2-spec section 6.6), with no prompt.

    Example:
        >>> clean_caption('A "red" car...  (parked), isn\'t it?\n')
        "a red car parked , isn't it?"
    """
    text = _BLANKS.sub(" ", _MARKS.sub(" ", caption.lower())).rstrip("\n").strip(" ")
    return " ".join(text.split(" ")[:max_words])


def clean_question(question: str, max_words: int = 50) -> str:
    """A question as BLIP-2 reads it: lower case, ten punctuation marks removed, at most `max_words` words; "?" stays.

    Source: the `blip_question` processor of BLIP-2's released code.

    Example:
        >>> clean_question("What is (on) the left?  ")
        'what is on the left?'
    """
    text = _MARKS.sub("", question.lower()).rstrip(" ")
    return " ".join(text.split(" ")[:max_words])


def clean_answer(answer: str) -> str:
    """An answer in VQAv2's form: lower case, without surrounding blanks or a final full stop.

    Answers of Visual Genome are sentences (`"A man."`), those of VQAv2 words (`"man"`); inner punctuation stays
    (`"10:30"`).

    Example:
        >>> clean_answer(" On the left. "), clean_answer("10:30")
        ('on the left', '10:30')
    """
    return answer.lower().strip().rstrip(".").rstrip()


def put_question(template: str, question: str) -> str:
    """The prompt of a question: `template` with the question in place of `{}`.

    Example:
        >>> put_question("Question: {} Answer:", " why? "), put_question("Question: {} Answer:", "")
        ('Question: why? Answer:', 'Question: Answer:')
    """
    text = question.strip()
    return template.replace("{}", text) if text else template.replace("{} ", "").replace("{}", "")
