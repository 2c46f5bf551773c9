"""The Q-Former's tokenizer as BERT has it, also from where an image token was added to it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from blip2_train.data.batches.tokenizers import TOKENIZER_CONFIG, load_qformer_tokenizer, normalisation
from blip2_train.from_transformers import load_tokenizer

IMAGE_TOKEN = "<image>"
"""Placeholder of transformers' processor."""


def load_text_tokenizer(folder_or_id: str) -> Any:
    """The tokenizer of `load_qformer_tokenizer`; the placeholder for images that transformers adds is left out.

    Raises:
        CheckpointMismatch: if there is none, or it is not BERT's.
    """
    folder = Path(folder_or_id)
    try:
        reader: Any = load_tokenizer(AutoTokenizer, folder_or_id) if folder.is_dir() else None
        vocabulary = reader.get_vocab() if reader is not None else {}
    except Exception:  # a folder with nothing but vocab.txt, or with no tokenizer at all
        vocabulary = {}
    if IMAGE_TOKEN not in vocabulary:
        return load_qformer_tokenizer(folder_or_id)
    content = json.loads(reader.backend_tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != IMAGE_TOKEN]
    content["model"]["vocab"].pop(IMAGE_TOKEN, None)
    with tempfile.TemporaryDirectory() as plain:
        (Path(plain) / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
        (Path(plain) / TOKENIZER_CONFIG).write_text(json.dumps(normalisation(folder)), encoding="utf-8")
        return load_qformer_tokenizer(plain)
