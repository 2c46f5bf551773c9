"""The tokenizer of the Q-Former's text side: BERT's, with `[DEC]` added."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, BertTokenizer

from blip2_train.errors import CheckpointMismatch
from blip2_train.from_transformers import load_tokenizer
from blip2_train.hub import fetch_files
from blip2_train.system.error_reasons import reason_of
from blip2_train.system.records import JsonObject, read_record

DECODER_START = "[DEC]"
TOKENIZER_CONFIG = "tokenizer_config.json"
TOKENIZER_FILES = ("vocab.txt", "tokenizer.json", TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json")
_VOCABULARIES = ("vocab.txt", "tokenizer.json")
_NEEDED = ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]")
_NORMALISATION = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
"""Options in which BERT's tokenizers differ: names in `tokenizer_config.json` and in `tokenizer.json`."""
_PARTS = {"model": "WordPiece", "normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer"}
_SAME_AS_BERT = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer")
"""Tokenizer classes that split a text as BERT's does, for folders that have only a `vocab.txt`."""


def load_qformer_tokenizer(folder_or_id: str) -> Any:
    """A BERT tokenizer with `[DEC]` added to its vocabulary; the texts of ITG start with it instead of `[CLS]`.

    It accepts BERT's WordPiece vocabulary of any language: lower-casing, stripping of accents and splitting of Chinese
    characters follow `tokenizer_config.json`, else `tokenizer.json`, else the rules for English. Tokens that were added
    to the vocabulary stay; `[DEC]` comes behind them; a vocabulary that holds one elsewhere is refused.

    Args:
        folder_or_id: folder with `vocab.txt` or `tokenizer.json`; or a hub id (`bert-base-uncased`), the only case in
            which files are downloaded. An existing folder is never taken for a hub id.

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
    options = {"truncation_side": "right", "padding_side": "right", **normalisation(folder)}
    try:
        tokenizer = load_tokenizer(BertTokenizer, str(folder), **options)
    except CheckpointMismatch:
        raise
    except Exception as error:  # transformers raises whatever its readers raise
        raise CheckpointMismatch(f"tokenizer {folder_or_id} cannot be loaded: {reason_of(error)}") from None
    _refuse_gaps(tokenizer, folder_or_id)
    tokenizer.add_special_tokens({"bos_token": DECODER_START})
    if tokenizer.bos_token_id != len(tokenizer) - 1:
        raise CheckpointMismatch(
            f"tokenizer {folder_or_id} has {DECODER_START} at {tokenizer.bos_token_id}, not as the last of its "
            f"{len(tokenizer)} tokens: give the tokenizer as BERT publishes it, without a {DECODER_START} of its own"
        )
    return tokenizer


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds the vocabulary of a tokenizer."""
    return any((folder / name).is_file() for name in _VOCABULARIES)


def normalisation(folder: Path) -> dict[str, Any]:
    """How a folder's tokenizer normalises text before it splits words: arguments of `BertTokenizer`.

    transformers 5 builds it from `tokenizer_config.json` alone, and lower-cases text for a cased vocabulary whose
    `tokenizer.json` keeps the case.

    Raises:
        CheckpointMismatch: if its files cannot be read, or describe another tokenizer than BERT's.
    """
    stated = _json(folder / TOKENIZER_CONFIG)
    chosen = {key: stated[key] for key in _NORMALISATION if key in stated}
    for key, value in chosen.items():
        if not (isinstance(value, bool) or value is None):
            raise CheckpointMismatch(f"{folder / TOKENIZER_CONFIG}: {key} is {value!r}, true or false is needed")
    if not (folder / "tokenizer.json").is_file():
        kind = str(stated.get("tokenizer_class") or _SAME_AS_BERT[0]).removesuffix("Fast")
        if kind not in _SAME_AS_BERT:
            raise CheckpointMismatch(
                f"tokenizer {folder} is a {kind} ({TOKENIZER_CONFIG}), which splits words by other rules than BERT's; "
                "give a BERT whose words are split by its WordPiece vocabulary alone"
            )
        return chosen
    content = _json(folder / "tokenizer.json")
    for part, expected in _PARTS.items():
        held = content.get(part)
        actual = held.get("type", expected if part == "model" else None) if isinstance(held, dict) else held
        if actual != expected:
            raise CheckpointMismatch(
                f"tokenizer {folder} is not a BERT tokenizer: the {part} of its tokenizer.json is {actual}, BERT's is "
                f"{expected}"
            )
    made: Mapping[str, Any] = content["normalizer"]
    return {key: made[name] for key, name in _NORMALISATION.items() if name in made} | chosen


def _refuse_gaps(tokenizer: Any, name: str) -> None:
    """Refuse a vocabulary that numbers its tokens with gaps: `[DEC]` would get the id of another token."""
    used = set((vocabulary := tokenizer.get_vocab()).values())
    if (gap := next((index for index in range(len(vocabulary)) if index not in used), None)) is not None:
        raise CheckpointMismatch(
            f"tokenizer {name} has no token with id {gap}: a token stands twice in its vocabulary, or ids are left "
            "out; give each token a line of its own"
        )
    if (pad := tokenizer.pad_token_id) != 0:
        raise CheckpointMismatch(
            f"tokenizer {name} has [PAD] at {pad}: the Q-Former keeps id 0 for it, and never trains that word's "
            "embedding; give a vocabulary that starts with [PAD]"
        )


def _fetched(name: str) -> Path:
    """The folder of a tokenizer of the hub; `from_pretrained` would return an empty one for an unavailable id."""
    try:
        return fetch_files(name, TOKENIZER_FILES)
    except CheckpointMismatch as error:
        raise CheckpointMismatch(f"tokenizer: {error} with vocab.txt") from error


def _vocabulary(folder: Path) -> frozenset[str]:
    """The tokens that a folder's files list.

    Raises:
        CheckpointMismatch: if there is no such file, or it cannot be read.
    """
    try:
        if (folder / "vocab.txt").is_file():
            return frozenset((folder / "vocab.txt").read_text(encoding="utf-8").split("\n"))
        if (folder / "tokenizer.json").is_file():
            content = _json(folder / "tokenizer.json")
            added = [token["content"] for token in content.get("added_tokens") or []]
            model = content["model"]["vocab"]
            return frozenset([*added, *(model if isinstance(model, dict) else (token for token, _ in model))])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointMismatch(f"tokenizer {folder} cannot be read: {type(error).__name__}: {error}") from None
    raise CheckpointMismatch(f"folder {folder} holds no tokenizer: neither vocab.txt nor tokenizer.json is there")


def _json(file: Path) -> dict[str, Any]:
    """The content of a JSON file, empty if there is none."""
    return read_record(file, JsonObject, "download it again") if file.is_file() else {}


IMAGE_TOKEN = "<image>"
"""Placeholder for images in the vocabulary of transformers' processor."""


def load_text_tokenizer(folder_or_id: str) -> Any:
    """The tokenizer of `load_qformer_tokenizer`, without the placeholder for images that transformers adds.

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
