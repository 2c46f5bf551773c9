"""The tokenizer of the Q-Former's text side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import BertTokenizer

from blip2_train.errors import CheckpointMismatch
from blip2_train.hub import fetch_files

DECODER_START = "[DEC]"
TOKENIZER_FILES = ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_VOCABULARIES = ("vocab.txt", "tokenizer.json")
_NEEDED = ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]")


def load_qformer_tokenizer(folder_or_id: str) -> Any:
    """BERT's tokenizer with `[DEC]` added as its last token, the start of the texts that ITG generates.

    Args:
        folder_or_id: folder with `vocab.txt` or `tokenizer.json`; or a hub id (`bert-base-uncased`), the only case in
            which anything is downloaded. What exists as a folder is never taken for a hub id.

    Returns:
        A transformers tokenizer whose `bos_token` is `[DEC]`, with the largest id. Truncates and pads on the right.

    Raises:
        CheckpointMismatch: if there is no such tokenizer, or it is not a BERT tokenizer.

    Source: BLIP-2's released code, which adds `[DEC]` to bert-base-uncased (30,522 + 1 tokens).
    """
    folder = Path(folder_or_id).expanduser()
    if not folder.is_dir():
        if folder.is_absolute() or folder_or_id.startswith((".", "~")) or len(folder.parts) > 2 or folder.exists():
            raise CheckpointMismatch(
                f"there is no tokenizer folder {folder_or_id}: give a folder with vocab.txt, or a hub id"
            )
        folder = _fetched(folder_or_id)
    vocabulary = _vocabulary(folder)
    if missing := [token for token in _NEEDED if token not in vocabulary]:
        raise CheckpointMismatch(
            f"tokenizer {folder} is not a BERT tokenizer: its vocabulary of {len(vocabulary)} lacks "
            f"{', '.join(missing)}. Give a folder with BERT's vocab.txt"
        )
    try:
        tokenizer = BertTokenizer.from_pretrained(str(folder), truncation_side="right", padding_side="right")
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointMismatch(f"tokenizer {folder_or_id} cannot be loaded: {reason}") from None
    tokenizer.add_special_tokens({"bos_token": DECODER_START})
    if tokenizer.bos_token_id != len(tokenizer) - 1:
        raise CheckpointMismatch(
            f"tokenizer {folder_or_id} has {DECODER_START} at {tokenizer.bos_token_id}, not as the last of its "
            f"{len(tokenizer)} tokens: give the tokenizer as BERT publishes it, without added tokens"
        )
    return tokenizer


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds the vocabulary of a tokenizer."""
    return any((folder / name).is_file() for name in _VOCABULARIES)


def _fetched(name: str) -> Path:
    """The folder of a tokenizer of the hub; `from_pretrained` would make an empty one of an id that cannot be had."""
    try:
        return fetch_files(name, TOKENIZER_FILES)
    except CheckpointMismatch as error:
        raise CheckpointMismatch(f"tokenizer: {error} with vocab.txt") from error


def _vocabulary(folder: Path) -> frozenset[str]:
    """The tokens a folder's files list.

    Raises:
        CheckpointMismatch: if there is no such file, or it cannot be read.
    """
    try:
        if (folder / "vocab.txt").is_file():
            return frozenset((folder / "vocab.txt").read_text(encoding="utf-8").split("\n"))
        if (folder / "tokenizer.json").is_file():
            content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
            added = [token["content"] for token in content.get("added_tokens", [])]
            model = content["model"]["vocab"]
            return frozenset([*added, *(model if isinstance(model, dict) else (piece for piece, _ in model))])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointMismatch(f"tokenizer {folder} cannot be read: {type(error).__name__}: {error}") from None
    raise CheckpointMismatch(f"folder {folder} holds no tokenizer: neither vocab.txt nor tokenizer.json is there")
