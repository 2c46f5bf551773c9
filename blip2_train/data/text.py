"""The cleaning of captions, questions and answers before tokenisation."""

from __future__ import annotations

import re

_MARKS = re.compile(r"[.!\"()*#:;~]")
_BLANKS = re.compile(r"\s{2,}")


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
    asked = question.strip()
    return template.replace("{}", asked) if asked else template.replace("{} ", "").replace("{}", "")
