"""The cleaning of captions, questions and answers before tokenisation, and which of them can be used at all."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

from blip2_train.data.sources.rejections import UnusableSample

NOT_UNICODE, EMPTY = "text is not Unicode", "empty caption"
"""Reasons that texts are rejected for."""

_MARKS = re.compile(r"[.!\"()*#:;~]")
_BLANKS = re.compile(r"\s{2,}")
_HALVES = re.compile("[\ud800-\udfff]")
"""Halves of characters (surrogates), which JSON can hold, and which stand for bytes that are not UTF-8."""
_INVISIBLE = ("Cc", "Cf")
"""Unicode's control and formatting characters; tokenizers drop them, or have no use for them."""


def is_unicode(text: str) -> bool:
    r"""Whether a text can be written as UTF-8, as every tokenizer, file and Java program needs it.

    Example:
        >>> is_unicode("a \U0001f697"), is_unicode("a \ud83d")
        (True, False)
    """
    return _HALVES.search(text) is None


def without_broken_marks(text: str) -> str:
    r"""A text without its halves of characters: what is scored where every text counts and none can be replaced.

    Example:
        >>> without_broken_marks("a red car \ud83d")
        'a red car '
    """
    return _HALVES.sub("", text)


def text_fault(text: str, cleaned: str) -> str | None:
    r"""Why a text cannot be used, as a reason to reject it for; None if it can.

    Control characters beside words stay: they are Unicode. A text of nothing else is empty.

    Args:
        text: as written.
        cleaned: what is left of it after cleaning.

    Example:
        >>> text_fault("A car.", "a car"), text_fault("...", ""), text_fault("\x00\u200b", "\x00\u200b")
        (None, 'empty caption', 'empty caption')
    """
    if not is_unicode(text):
        return NOT_UNICODE
    visible = (mark for mark in cleaned if not mark.isspace() and unicodedata.category(mark) not in _INVISIBLE)
    return None if next(visible, None) else EMPTY


def usable_texts(texts: Sequence[str], clean: Callable[[str], str]) -> list[tuple[int, str]]:
    """Place and cleaned text of each text that can be used.

    Args:
        texts: of one sample, as written.
        clean: gives what is trained on.

    Raises:
        UnusableSample: if there is none.
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
    r"""Which texts of a sample are not Unicode, for people; empty if all are.

    Example:
        >>> broken_texts(["a car", "a \ud83d"])
        'caption 2 of 2 is left out'
    """
    broken = [str(position) for position, text in enumerate(texts, 1) if not is_unicode(text)]
    return f"caption {', '.join(broken)} of {len(texts)} is left out" if broken else ""


def clean_caption(caption: str, max_words: int = 50) -> str:
    r"""A caption as BLIP-2 trains on it: lower case, ten marks turned into blanks, at most `max_words` words.

    Commas, apostrophes, hyphens, question marks, slashes and digits stay. The result may be empty.

    Args:
        caption: text as found in the data.
        max_words: words kept, counted between single blanks.

    Source: the `blip_caption` processor of BLIP-2's released code (reference: blip2-spec section 6.6), with no prompt.

    Example:
        >>> clean_caption('A "red" car...  (parked), isn\'t it?\n')
        "a red car parked , isn't it?"
    """
    text = _BLANKS.sub(" ", _MARKS.sub(" ", caption.lower())).rstrip("\n").strip(" ")
    return " ".join(text.split(" ")[:max_words])


def clean_question(question: str, max_words: int = 50) -> str:
    """A question as BLIP-2 reads it: lower case, ten marks removed, at most `max_words` words; "?" stays.

    Source: the `blip_question` processor of BLIP-2's released code.

    Example:
        >>> clean_question("What is (on) the left?  ")
        'what is on the left?'
    """
    text = _MARKS.sub("", question.lower()).rstrip(" ")
    return " ".join(text.split(" ")[:max_words])


def clean_answer(answer: str) -> str:
    """An answer as people of VQAv2 give it: lower case, without blanks around it or a full stop at its end.

    Answers of Visual Genome are sentences (`"A man."`), those of VQAv2 words (`"man"`); marks inside stay (`"10:30"`).

    Example:
        >>> clean_answer(" On the left. "), clean_answer("10:30")
        ('on the left', '10:30')
    """
    return answer.lower().strip().rstrip(".").rstrip()


def put_question(template: str, question: str) -> str:
    """A question in the form in which a language model reads it; `{}` in `template` is its place.

    Example:
        >>> put_question("Question: {} Answer:", " why? "), put_question("Question: {} Answer:", "")
        ('Question: why? Answer:', 'Question: Answer:')
    """
    text = question.strip()
    return template.replace("{}", text) if text else template.replace("{} ", "").replace("{}", "")
