"""BERT weights into a fresh Q-Former (Li et al., 2023, section 3.1)."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blip2_train.checkpoints.convert.bert_config import CONFIG, local_bert, read_bert_config
from blip2_train.checkpoints.files import has_weights, read_weights
from blip2_train.checkpoints.load_rules import LoadReport, LoadRule, load_by_rule
from blip2_train.errors import CheckpointMismatch
from blip2_train.hub import fetch_files
from blip2_train.models.blip2 import Blip2Model
from blip2_train.models.configs import QFormerConfig
from blip2_train.models.qformer import copy_text_to_query_feed_forward

State = dict[str, Tensor]

_WORDS, _POSITIONS = "embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"
_SEGMENTS = "embeddings.token_type_embeddings.weight"
_OUTPUT, _OUTPUT_BIAS = "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"
_RENAMES = (
    (r"^(module\.)?(0\.auto_model\.)?(bert\.)?", ""),
    (r"\.gamma$", ".weight"),
    (r"\.beta$", ".bias"),
    (r"^embeddings\.LayerNorm\.", "qformer.layernorm."),
    (r"^encoder\.", "qformer.encoder."),
    (r"\.attention\.self\.", ".attention.attention."),
    (r"^cls\.predictions\.transform\.", "lm_head."),
    (r"^cls\.predictions\.bias$", "lm_head.bias"),
)
_IGNORED = (_SEGMENTS, "embeddings.position_ids", "embeddings.token_type_ids")
_BODY = ("embeddings.", "qformer.", "lm_head.")
"""Prefixes of the weights for a Q-Former; anything else is a head for another task (`pooler`, `classifier`, …)."""
_FEED_FORWARD = re.compile(r"(layer\.\d+\.)(intermediate|output)\.")


def load_bert(model: Blip2Model, weights: str) -> LoadReport:
    """Start the Q-Former from BERT: embeddings, self-attention, text feed-forward and prediction head.

    A model without text half takes the text's feed-forward for its queries, and leaves embeddings and head unused.

    Cross-attention, queries, projections, matching head and temperature stay fresh; the queries' feed-forward is copied
    from the text's; the row of `[DEC]` is fresh, and so is the whole prediction head if the BERT has none. Rows of the
    embeddings beyond the vocabulary of the checkpoint's own tokenizer are left out.

    Args:
        model: A model with a Q-Former.
        weights: A folder with `config.json` and `model.safetensors`, a weight file, or a hub id such as
            `google-bert/bert-base-uncased`.

    Returns:
        What was loaded, with notes on the head, the token types and what could not be compared.

    Raises:
        CheckpointMismatch: if the weights cannot be read, are no BERT's, or contradict the model's configuration.
    """
    config, what = model.qformer_config, f"BERT weights from {weights}"
    path = str(locate_bert(weights))
    known = read_bert_config(path)
    state = {_rename(key): tensor for key, tensor in read_weights(path).items()}
    state = _under_first_names(state)
    _refuse_contradictions(config, known, what)
    _refuse_other_words(config, state, known.get("vocab_size"), what)
    heads = tuple(key for key in state if not key.startswith(_BODY))
    notes = [] if "num_heads" in known else [_unchecked(config)]
    if model.reads_text:
        notes += _take_embeddings(model, state, what)
    if model.matches_texts:
        headless = not any(key.startswith("lm_head.") for key in state)
        if headless:
            notes.append("this BERT has no prediction head (a BertModel): the head of the generation loss starts fresh")
        elif "lm_head.bias" in state:
            bias = state["lm_head.bias"][: config.vocab_size - 1].float()
            state["lm_head.bias"] = torch.cat([bias, bias.new_zeros(1)])
        fresh = (*model.fresh_beside_bert, "lm_head.*") if headless else model.fresh_beside_bert
        rule = LoadRule(what=what, may_miss=fresh, may_ignore=(*_IGNORED, *heads))
        report = load_by_rule(model, state, rule)
        copy_text_to_query_feed_forward(model.qformer)
        return replace(report, notes=tuple(notes))
    queries = {_FEED_FORWARD.sub(r"\1\2_query.", key): tensor for key, tensor in state.items()}
    own = {name for name, _ in model.named_parameters()}
    text = {key: tensor for key, tensor in state.items() if model.reads_text and key in own}
    unused = (*_IGNORED, *heads, *(() if model.reads_text else ("embeddings.*",)), "lm_head.*")
    rule = LoadRule(what=what, may_miss=model.fresh_beside_bert, may_ignore=unused)
    return replace(load_by_rule(model, queries | text, rule), notes=tuple(notes))


def locate_bert(weights: str) -> Path:
    """The local folder or file of `weights`; a hub id is fetched.

    Raises:
        CheckpointMismatch: if a hub id cannot be fetched.
    """
    path = local_bert(weights)
    if path is not None:
        return path
    try:
        folder = fetch_files(weights, ["model*.safetensors", "model.safetensors.index.json", "*.json", "vocab.txt"])
        if not has_weights(folder):  # an older repository
            folder = fetch_files(weights, ["pytorch_model*.bin", "pytorch_model.bin.index.json"])
    except CheckpointMismatch as error:
        raise CheckpointMismatch(f"BERT weights: {error}, or set weights: random") from error
    return folder


def _rename(key: str) -> str:
    for pattern, replacement in _RENAMES:
        key = re.sub(pattern, replacement, key)
    return key


def _under_first_names(state: State) -> State:
    """Tied tensors, of which a file may keep either name, under the name that is read here."""
    for first, second in ((_WORDS, _OUTPUT), ("lm_head.bias", _OUTPUT_BIAS)):
        if first not in state and second in state:
            state[first] = state.pop(second)
    return state


def _refuse_contradictions(config: QFormerConfig, known: dict[str, Any], what: str) -> None:
    wrong = [
        f"model.qformer.{name} is {getattr(config, name)}, the checkpoint has {value}"
        for name, value in known.items()
        if name != "vocab_size" and not _same(getattr(config, name), value)
    ]
    if wrong:
        raise CheckpointMismatch(f"{what}: {'; '.join(wrong)} ({CONFIG}); give the model the same")


def _same(ours: Any, theirs: Any) -> bool:
    return math.isclose(ours, theirs, rel_tol=1e-6) if isinstance(theirs, float) else bool(ours == theirs)


def _refuse_other_words(config: QFormerConfig, state: State, tokens: int | None, what: str) -> None:
    """Refuse another vocabulary; more rows than tokens are allowed where the checkpoint's tokenizer is as small."""
    words = state.get(_WORDS)
    if "query_tokens" in state:
        raise CheckpointMismatch(f"{what} have query tokens: they are a BLIP-2's, which is continued with init_from")
    if words is None:
        raise CheckpointMismatch(f"{what} hold no word embeddings ({_WORDS}): the file is no BERT's")
    rows, expected = words.shape[0], config.vocab_size - 1
    if rows < expected or (rows > expected and tokens != config.vocab_size):
        raise CheckpointMismatch(
            f"{what} have {rows} tokens, the recipe expects {expected} (qformer.vocab_size counts [DEC] on top); use "
            "the weights that belong to the tokenizer"
        )
    if words.shape[1] != config.hidden_size:
        raise CheckpointMismatch(
            f"{what} have hidden size {words.shape[1]}, the recipe's shape is {config.hidden_size} "
            "(qformer.hidden_size); make them agree"
        )


def _unchecked(config: QFormerConfig) -> str:
    return (
        f"no {CONFIG} is beside the weights: {config.num_heads} heads, {config.hidden_act} and layer_norm_eps "
        f"{config.layer_norm_eps:g} are the recipe's, and could not be compared"
    )


def _take_embeddings(model: Blip2Model, state: State, what: str) -> list[str]:
    """Replace the rows of tokens and positions in `state` by their final form; returns notes on the changes."""
    config, notes = model.qformer_config, list[str]()
    rows, expected = len(state[_WORDS]), config.vocab_size - 1
    if rows > expected:
        notes.append(f"rows {expected} … {rows - 1} of the word embeddings belong to no token and are left out")
    fresh_row = model.embeddings.word_embeddings.weight.detach()[-1:]
    state[_WORDS] = torch.cat([state[_WORDS][:expected].float(), fresh_row])
    segments, positions = state.get(_SEGMENTS), state.get(_POSITIONS)
    if not config.fold_token_type:
        if segments is not None:
            notes.append(
                "token-type embeddings are dropped, as in the original, so that a text pass differs from BERT's; "
                "model.qformer.fold_token_type=true adds row 0 to the positions"
            )
        return notes
    if segments is None or positions is None:
        raise CheckpointMismatch(
            f"{what} hold no token-type embeddings to fold; set model.qformer.fold_token_type=false"
        )
    state[_POSITIONS] = positions.float() + segments[0].float()
    return [*notes, "row 0 of the token-type embeddings is added to the positions: a text pass computes what BERT does"]
