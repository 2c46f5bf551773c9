"""Text from the tokens of a BERT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def decode_word_pieces(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of a BERT's ids as it is usually written: `a man's hat`, where the tokens are `a man ' s hat`.

    transformers 4 wrote that by itself (4.57.6: `clean_up_tokenization_spaces` is true for BERT); since 5 it has to be
    an argument, and 5.24 does so for WordPiece alone.
    """
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=True)).strip()
