"""The forms in which captions, questions and conversations are put to a language model."""

from __future__ import annotations

from collections.abc import Sequence

from blip2_train.data.text_cleaning import clean_question, is_unicode
from blip2_train.errors import ConfigError

DECODER_ONLY, ENCODER_DECODER = "Question: {} Answer:", "Question: {} Short answer:"
"""How a question is put; source: BLIP-2, section 4.1."""
CHAT = DECODER_ONLY


def question_template(given: str | None, trained: str, encoder_decoder: bool) -> str:
    """The form of a question: what was given, else what was trained, else the paper's for this kind of language model.

    Args:
        given: Form, or None.
        trained: The prompt of training; used if it is the form of a question.
        encoder_decoder: Whether the language model has an encoder.

    Raises:
        ConfigError: if it has no `{}` for the question.
    """
    if given is None and "{}" in trained:
        return trained
    if given is None:
        return ENCODER_DECODER if encoder_decoder else DECODER_ONLY
    if "{}" not in given:
        raise ConfigError(f"prompt {given!r} has no {{}} for the question; write for instance {DECODER_ONLY!r}")
    return given.strip()


def caption_prompt(prompt: str) -> str:
    """The beginning of a caption, without blanks around it: tokens carry the blank in front of a word themselves.

    Raises:
        ConfigError: if it consists of blanks only, is not Unicode, or is the form of a question.
    """
    if not is_unicode(prompt):
        raise ConfigError(f"prompt {prompt!r} is not Unicode (it holds half a character); write it again in UTF-8")
    if "{}" in prompt:
        raise ConfigError(
            f"this model was trained to answer questions ({prompt!r}), not to describe images; ask it one (answer), "
            "or give another prompt"
        )
    if prompt and not prompt.strip():
        raise ConfigError(f"prompt {prompt!r} is blank; write a text, or leave it out for the model's own")
    return prompt.strip()


def one_prompt_each(given: str | Sequence[str], count: int) -> list[str]:
    """The beginning of a caption for each of `count` images, from one for each or one for all.

    Raises:
        ConfigError: if there are more or fewer, or one cannot be used.
    """
    each = _one_each(given, count, "prompts")
    known = {prompt: caption_prompt(prompt) for prompt in dict.fromkeys(each)}
    return [known[prompt] for prompt in each]


def one_question_each(questions: str | Sequence[str], count: int, clean: bool) -> list[str]:
    """A question for each of `count` images, from one for each or one for all.

    Raises:
        ConfigError: if there are more or fewer questions.
    """
    return [clean_question(text) if clean else text for text in _one_each(questions, count, "questions")]


def _one_each(given: str | Sequence[str], count: int, what: str) -> list[str]:
    each = [given] * count if isinstance(given, str) else list(given)
    if len(each) != count:
        raise ConfigError(f"{count} images, but {len(each)} {what}; give one for each, or one in all")
    return each


def question_prompt(template: str, question: str) -> str:
    """The question in its form.

    Raises:
        ConfigError: if there is no question.

    Example:
        >>> question_prompt("Question: {} Answer:", " why? ")
        'Question: why? Answer:'
    """
    if not question.strip():
        raise ConfigError("a question is empty; write a text, or leave it out")
    return template.replace("{}", question.strip())


def conversation_prompt(template: str, turns: Sequence[tuple[str, str]], message: str) -> str:
    """Earlier questions and answers and the new question as one prompt.

    Raises:
        ConfigError: if a question is empty, or an earlier round is no pair of texts.

    Example:
        >>> conversation_prompt(CHAT, [("which city is this?", "singapore")], "why?")
        'Question: which city is this? Answer: singapore Question: why? Answer:'
    """
    for turn in turns:
        if not (isinstance(turn, tuple | list) and len(turn) == 2 and all(isinstance(text, str) for text in turn)):
            raise ConfigError(f"an earlier round of a conversation is a pair (question, answer), not {turn!r:.80}")
    parts = [part for question, answer in turns for part in (question_prompt(template, question), answer.strip())]
    return " ".join(part for part in [*parts, question_prompt(template, message)] if part)


def first_answer(template: str, answer: str) -> str:
    """An answer, up to where the model goes on with a question of its own.

    Example:
        >>> first_answer(CHAT, "a cat Question: what colour is it? Answer: black")
        'a cat'
    """
    end = lead(template)
    return answer.split(end)[0].strip() if end else answer


def lead(template: str) -> str:
    """What stands before a question in its form."""
    return template.split("{}")[0].strip()
