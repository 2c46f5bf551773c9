"""The configuration of a BERT checkpoint: sizes and choices of a Q-Former that starts from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from transformers import BertConfig

from blip2_train.checkpoints.export import MANIFEST
from blip2_train.checkpoints.files import WEIGHT_FILES
from blip2_train.data.batches.qformer_tokenizer import TOKENIZER_FILES, has_tokenizer, load_qformer_tokenizer
from blip2_train.errors import CheckpointMismatch
from blip2_train.hub import fetch_files
from blip2_train.models.configs import ACTIVATIONS
from blip2_train.system.records import JsonObject, Size, check_record, read_record

CONFIG = "config.json"
_COUNTS = {
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "max_positions": "max_position_embeddings",
}
_INSTEAD = {"blip-2": "; a BLIP-2 is continued with init_from", "blip": "; give a plain BERT"}


_AGAIN = "download it again"


class _Bert(msgspec.Struct):
    """The fields that are read of a configuration; the defaults are BERT's own, which old files leave out."""

    hidden_size: Size = 768
    num_hidden_layers: Size = 12
    num_attention_heads: Size = 12
    intermediate_size: Size = 3072
    max_position_embeddings: Size = 512
    vocab_size: Size = 30522
    hidden_act: str = "gelu"
    layer_norm_eps: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 1e-12


def read_bert_config(weights: str, tokenizer: str | None = None) -> dict[str, Any]:
    """The fields of `QFormerConfig` that a BERT checkpoint fixes, from its `config.json` and its tokenizer.

    Args:
        weights: A folder, a weight file, or a hub id, of which only `config.json` and the tokenizer are fetched.
        tokenizer: Folder or hub id of the tokenizer that is used; None = the one beside the weights.

    Returns:
        `hidden_size`, `num_layers`, `num_heads`, `intermediate_size`, `max_positions`, `hidden_act`, `layer_norm_eps`,
        and `vocab_size`: the tokens of the tokenizer with `[DEC]`, or, where no tokenizer is known, the rows of the
        word embeddings and one. A file or folder without `config.json` fixes no more than its tokenizer does.

    Raises:
        CheckpointMismatch: if nothing is there, it is of another kind of model, or its values cannot be used.
    """
    path = local_bert(weights)
    if path is None:
        try:
            path = fetch_files(weights, [CONFIG, *TOKENIZER_FILES])
        except CheckpointMismatch as error:
            raise CheckpointMismatch(f"BERT weights: {error}, or set weights: random") from error
    if not path.exists():
        raise CheckpointMismatch(f"there is no weight file {path}; check the path, or set weights: random")
    if (path / MANIFEST).is_file():
        raise CheckpointMismatch(f"{weights} is an export of a run, no BERT; start from it with init_from={weights}")
    folder = path if path.is_dir() else path.parent if path.name in WEIGHT_FILES else None
    if folder is None:
        return {} if tokenizer is None else {"vocab_size": len(load_qformer_tokenizer(tokenizer))}
    beside = str(folder) if has_tokenizer(folder) else None
    known = tokenizer if tokenizer is not None else beside
    tokens = None if known is None else len(load_qformer_tokenizer(known))
    values = _read(folder / CONFIG, weights) if (folder / CONFIG).is_file() else {}
    rows = values.pop("rows", None)
    if tokens is not None and rows is not None and tokens - 1 > rows:
        raise CheckpointMismatch(
            f"the tokenizer {known} has {tokens - 1} tokens, BERT weights from {weights} have only {rows} "
            f"({CONFIG}: vocab_size); give the tokenizer that belongs to the weights"
        )
    words = tokens if tokens is not None else None if rows is None else rows + 1
    return values if words is None else {**values, "vocab_size": words}


def bert_tokenizer(weights: str) -> str | None:
    """Folder or hub id of the tokenizer that belongs to BERT weights; None if there is none beside them.

    Args:
        weights: As for `read_bert_config`.
    """
    path = local_bert(weights)
    if path is None:
        return weights
    folder = path.parent if path.is_file() else path
    return str(folder) if has_tokenizer(folder) and (path.is_dir() or path.name in WEIGHT_FILES) else None


def local_bert(weights: str) -> Path | None:
    """The local folder or file of `weights`, whether it exists or not; None for a hub id."""
    path = Path(weights).expanduser()
    if path.exists() or path.suffix in (".safetensors", ".bin", ".pt", ".pth") or weights.startswith((".", "/", "~")):
        return path
    return None


def _read(file: Path, weights: str) -> dict[str, Any]:
    content = read_record(file, JsonObject, _AGAIN)
    _refuse_others(content, file, weights)
    stated = check_record(content, _Bert, file, _AGAIN)
    values: dict[str, Any] = {name: getattr(stated, key) for name, key in _COUNTS.items()}
    if values["hidden_size"] % values["num_heads"]:
        raise CheckpointMismatch(
            f"{file}: hidden_size {values['hidden_size']} is not divisible by num_attention_heads {values['num_heads']}"
        )
    if stated.hidden_act not in ACTIVATIONS:
        raise CheckpointMismatch(
            f"{file}: hidden_act is {stated.hidden_act!r}; the Q-Former computes one of {', '.join(ACTIVATIONS)}"
        )
    return {
        **values,
        "hidden_act": stated.hidden_act,
        "layer_norm_eps": stated.layer_norm_eps,
        "rows": stated.vocab_size,
    }


def _refuse_others(content: Mapping[str, Any], file: Path, weights: str) -> None:
    """Refuse what is no BERT, by what it calls itself; configurations older than `model_type` have only BERT's keys."""
    kind = content.get("model_type")
    if kind is None and "num_attention_heads" not in content:
        raise CheckpointMismatch(f"{file} is no configuration of BERT: it has neither model_type nor its sizes")
    if kind not in (None, BertConfig.model_type):
        raise CheckpointMismatch(
            f"{weights} is a model of type {kind!r} ({CONFIG}: model_type), the Q-Former starts from 'bert' "
            f"only{_INSTEAD.get(str(kind), '')}"
        )
    positions = content.get("position_embedding_type", "absolute")
    if positions != "absolute":
        raise CheckpointMismatch(
            f"{weights} has position embeddings of type {positions!r}, the Q-Former learned ones ('absolute'); give "
            "another BERT"
        )
