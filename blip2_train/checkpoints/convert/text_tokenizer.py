"""The Q-Former's tokenizer as BERT has it, also from where an image token was added to it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from blip2_train.data.tokenizers import DECODER_START, load_qformer_tokenizer

IMAGE_TOKEN = "<image>"
"""Placeholder of transformers' processor."""


def load_text_tokenizer(folder_or_id: str) -> Any:
    """The tokenizer of `load_qformer_tokenizer`; the placeholder for pictures that transformers adds is left out.

    Raises:
        CheckpointMismatch: if there is none, or it is not BERT's.
    """
    try:
        vocabulary = AutoTokenizer.from_pretrained(folder_or_id).get_vocab() if Path(folder_or_id).is_dir() else {}
    except Exception:  # a folder with nothing but vocab.txt, or with no tokenizer at all
        vocabulary = {}
    if IMAGE_TOKEN not in vocabulary:
        return load_qformer_tokenizer(folder_or_id)
    added = (IMAGE_TOKEN, DECODER_START)
    words = [word for word in sorted(vocabulary, key=vocabulary.__getitem__) if word not in added]
    with tempfile.TemporaryDirectory() as plain:
        (Path(plain) / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
        return load_qformer_tokenizer(plain)
