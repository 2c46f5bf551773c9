"""Counts the tokens of texts that a tokenizer does not know: from texts in another language a model learns nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from blip2_train.data.batches.language_tokenizer import AnsweringTokenizer, LanguageTokenizer
from blip2_train.types import ImageTextSample

TOO_MANY_UNKNOWN = 0.2
"""Share of unknown tokens above which a tokenizer counts as one of another language."""
_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class UnknownTokens:
    """Counts of all and of unknown tokens of some texts."""

    unknown: int
    tokens: int
    """All tokens of the texts, without the special tokens around them."""
    example: str = ""
    """The first text that has an unknown token."""

    @property
    def share(self) -> float:
        """Share of unknown tokens, 0 … 1."""
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
    """Count the unknown tokens in the texts of samples; of two tokenizers, the result with the larger share.

    Args:
        tokenizer: A collator's tokenizer: of the Q-Former, of a language model, or of both.
        samples: Samples with captions, or with questions and answers.
    """
    captions = [sample.caption for sample in samples]
    questions = [question for sample in samples if (question := getattr(sample, "question", ""))]
    if not isinstance(tokenizer, LanguageTokenizer):
        return _count(tokenizer, captions)
    counts_of_model = _count(tokenizer.tokenizer, [*captions, *questions])
    if not isinstance(tokenizer, AnsweringTokenizer):
        return counts_of_model
    return max(counts_of_model, _count(tokenizer.question_tokenizer, questions), key=lambda counts: counts.share)


def _count(tokenizer: Any, texts: Sequence[str]) -> UnknownTokens:
    unknown, tokens, example = 0, 0, ""
    for text, ids in zip(texts, _rows(tokenizer, texts), strict=True):
        unknown_here = sum(token_id == tokenizer.unk_token_id for token_id in ids)
        unknown, tokens = unknown + unknown_here, tokens + len(ids)
        example = example or (text if unknown_here else "")
    return UnknownTokens(unknown=unknown, tokens=tokens, example=example)


def _rows(tokenizer: Any, texts: Sequence[str]) -> Iterable[list[int]]:
    for first in range(0, len(texts), _AT_ONCE):
        some = list(texts[first : first + _AT_ONCE])
        yield from tokenizer(some, add_special_tokens=False, verbose=False).input_ids
