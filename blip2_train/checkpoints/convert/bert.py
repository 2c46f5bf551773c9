"""BERT weights into a fresh Q-Former (Li et al., 2023, section 3.1)."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from blip2_train.checkpoints.files import read_weights
from blip2_train.checkpoints.handover import HandoverRule, LoadReport, load_by_rule
from blip2_train.errors import CheckpointMismatch
from blip2_train.hub import fetch_files
from blip2_train.models.image_queries import ImageQueryModel
from blip2_train.models.image_text import ImageTextModel
from blip2_train.models.qformer import copy_text_to_query_feed_forward

_RENAMES = (
    (r"^bert\.", ""),
    (r"\.gamma$", ".weight"),
    (r"\.beta$", ".bias"),
    (r"^embeddings\.LayerNorm\.", "qformer.layernorm."),
    (r"^encoder\.", "qformer.encoder."),
    (r"\.attention\.self\.", ".attention.attention."),
    (r"^cls\.predictions\.transform\.", "lm_head."),
    (r"^cls\.predictions\.bias$", "lm_head.bias"),
)
_FRESH = (
    "vision_model.*",
    "ln_vision.*",
    "query_tokens",
    "temperature",
    "itm_head.*",
    "vision_projection.*",
    "text_projection.*",
    "qformer.encoder.layer.*.crossattention.*",
    "qformer.encoder.layer.*.intermediate_query.*",
    "qformer.encoder.layer.*.output_query.*",
)
_IGNORED = (
    "pooler.*",
    "embeddings.token_type_embeddings.weight",
    "embeddings.position_ids",
    "cls.seq_relationship.*",
    "cls.predictions.decoder.*",
)
_FRESH_IN_STAGE_2 = (
    "vision_model.*",
    "ln_vision.*",
    "query_tokens",
    "language_model.*",
    "language_projection.*",
    "qformer.encoder.layer.*.crossattention.*",
)
_FEED_FORWARD = re.compile(r"(layer\.\d+\.)(intermediate|output)\.")


def load_bert(model: ImageQueryModel, weights: str) -> LoadReport:
    """Start the Q-Former from BERT: embeddings, self-attention, text feed-forward and prediction head.

    A model without text half takes the text's feed-forward for its queries, and leaves embeddings and head unused.

    Cross-attention, queries, projections, matching head and temperature stay fresh; the queries' feed-forward is copied
    from the text's; the row of `[DEC]` is fresh.

    Args:
        model: A model with a Q-Former.
        weights: A folder with `model.safetensors`, a weight file, or a hub id such as `google-bert/bert-base-uncased`.

    Raises:
        CheckpointMismatch: if the weights cannot be read or have other sizes than the recipe.
    """
    state = {_rename(key): tensor for key, tensor in read_weights(locate_bert(weights)).items()}
    words = state.get("embeddings.word_embeddings.weight")
    expected = model.qformer_config.vocab_size - 1
    if words is None or words.shape[0] != expected:
        raise CheckpointMismatch(
            f"BERT weights from {weights} know {'no' if words is None else words.shape[0]} words, the recipe expects "
            f"{expected} (qformer.vocab_size counts [DEC] on top); use the weights that belong to the tokenizer"
        )
    size = model.qformer_config.hidden_size
    if words.shape[1] != size:
        raise CheckpointMismatch(
            f"BERT weights from {weights} have hidden size {words.shape[1]}, the recipe's shape is {size} "
            "(qformer.hidden_size); make them agree"
        )
    reads_text = any(name.startswith("embeddings.") for name, _ in model.named_parameters())
    if reads_text:
        fresh_row = model.embeddings.word_embeddings.weight.detach()[-1:]
        state["embeddings.word_embeddings.weight"] = torch.cat([words.float(), fresh_row])
    if not isinstance(model, ImageTextModel):
        queries = {_FEED_FORWARD.sub(r"\1\2_query.", key): tensor for key, tensor in state.items()}
        own = {name for name, _ in model.named_parameters()}
        text = {key: tensor for key, tensor in state.items() if reads_text and key in own}
        unused = (*_IGNORED, *(() if reads_text else ("embeddings.*",)), "lm_head.*")
        rule = HandoverRule(what=f"BERT weights from {weights}", may_miss=_FRESH_IN_STAGE_2, may_ignore=unused)
        return load_by_rule(model, queries | text, rule)
    bias = state.get("lm_head.bias")
    if bias is not None:
        state["lm_head.bias"] = torch.cat([bias.float(), bias.new_zeros(1).float()])
    rule = HandoverRule(what=f"BERT weights from {weights}", may_miss=_FRESH, may_ignore=_IGNORED)
    report = load_by_rule(model, state, rule)
    copy_text_to_query_feed_forward(model.qformer)
    return report


def _rename(key: str) -> str:
    for pattern, replacement in _RENAMES:
        key = re.sub(pattern, replacement, key)
    return key


def locate_bert(weights: str) -> Path:
    """The local folder or file that `weights` stands for; a hub id is fetched.

    Raises:
        CheckpointMismatch: if a hub id cannot be fetched.
    """
    path = Path(weights)
    if path.exists() or path.suffix in (".safetensors", ".bin", ".pt", ".pth") or weights.startswith((".", "/", "~")):
        return path
    try:
        return fetch_files(weights, ["*.safetensors", "config.json"])
    except CheckpointMismatch as error:
        raise CheckpointMismatch(f"BERT weights: {error}, or say weights: random") from error
