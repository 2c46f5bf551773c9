"""How much of the texts a tokenizer does not know: where it is of another language, a model learns nothing of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from blip2_train.data.batches.language_tokenizer import AnsweringTokenizer, LanguageTokenizer
from blip2_train.types import ImageTextSample

TOO_MANY_UNKNOWN = 0.2
"""Share of unknown tokens above which a tokenizer is taken for one of another language."""
_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class UnknownTokens:
    """What a tokenizer knows of some texts."""

    unknown: int
    tokens: int
    """All tokens of the texts themselves, without those that a model puts around them."""
    example: str = ""
    """The first text that has an unknown token."""

    @property
    def share(self) -> float:
        """Unknown ones among all, 0 … 1."""
        return self.unknown / self.tokens if self.tokens else 0.0

    @property
    def too_many(self) -> bool:
        """Whether the tokenizer is likely to be of another language."""
        return self.share > TOO_MANY_UNKNOWN

    def __str__(self) -> str:
        shown = self.example if len(self.example) <= 60 else f"{self.example[:59]}…"
        first = f", the first in {shown!r}" if self.unknown else ""
        return f"{100 * self.share:.1f} % of {self.tokens:,} tokens are unknown to the tokenizer{first}"


def unknown_tokens(tokenizer: Any, samples: Sequence[ImageTextSample]) -> UnknownTokens:
    """Count the unknown tokens in the texts of samples; of several tokenizers, as the one that knows least counts.

    Args:
        tokenizer: A collator's: of the Q-Former, of a language model, or of both.
        samples: With captions, or with questions and answers.
    """
    captions = [sample.caption for sample in samples]
    questions = [question for sample in samples if (question := getattr(sample, "question", ""))]
    if not isinstance(tokenizer, LanguageTokenizer):
        return _count(tokenizer, captions)
    spoken = _count(tokenizer.tokenizer, [*captions, *questions])
    if not isinstance(tokenizer, AnsweringTokenizer):
        return spoken
    return max(spoken, _count(tokenizer.question_tokenizer, questions), key=lambda counts: counts.share)


def _count(tokenizer: Any, texts: Sequence[str]) -> UnknownTokens:
    unknown, tokens, example = 0, 0, ""
    for text, ids in zip(texts, _rows(tokenizer, texts), strict=True):
        lost = sum(token_id == tokenizer.unk_token_id for token_id in ids)
        unknown, tokens = unknown + lost, tokens + len(ids)
        example = example or (text if lost else "")
    return UnknownTokens(unknown=unknown, tokens=tokens, example=example)


def _rows(tokenizer: Any, texts: Sequence[str]) -> Iterable[list[int]]:
    for first in range(0, len(texts), _AT_ONCE):
        some = list(texts[first : first + _AT_ONCE])
        yield from tokenizer(some, add_special_tokens=False, verbose=False).input_ids
