"""SmolLM2 from a GGUF file: weights that the package gguf dequantizes, and the tokenizer from the file's metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from blip2_train.errors import CheckpointMismatch
from blip2_train.system.extras import import_extra
from blip2_train.system.shared_files import share_as_usual

_TOKENS = "tokenizer.ggml."
_CONTROL = 3
"""GGUF's type of tokens that no text contains, `<|im_end|>` for instance."""
_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""Names of GGUF's Llama, and what transformers calls the same."""

Array = np.ndarray[Any, Any]


def convert_language_model(files: Mapping[str, Path], folder: Path) -> None:
    """Write a Hugging Face folder in float32, with tokenizer, into `folder`.

    Raises:
        CheckpointMismatch: if the file is no Llama with tied embeddings, or its tokenizer none of SmolLM2's kind.
        ConfigError: if the package gguf is not installed.
    """
    from safetensors.numpy import save_file
    from transformers import GenerationConfig

    (path,) = (path for name, path in files.items() if name.endswith(".gguf"))
    reader = _opened(path)
    tokenizer, state = read_tokenizer(reader, path.name), llama_state(reader, path.name)
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    share_as_usual(folder / "model.safetensors")
    llama_config(reader, special).save_pretrained(folder)
    GenerationConfig(**special).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name, file in files.items():
        if name.endswith("LICENSE"):
            (folder / "LICENSE").write_bytes(file.read_bytes())


def _opened(path: Path) -> Any:
    """The file as the package gguf reads it."""
    return import_extra("gguf", "reading the language model's GGUF file").GGUFReader(path)


def _values(reader: Any) -> dict[str, Any]:
    return {name: field.contents() for name, field in reader.fields.items()}


def llama_config(reader: Any, special: Mapping[str, int]) -> Any:
    """The configuration, as transformers has it, of a GGUF file's Llama.

    Args:
        reader: A `gguf.GGUFReader`.
        special: Ids of special tokens by their names in the configuration.
    """
    from blip2_train.from_transformers import make_config

    about = _values(reader)
    values = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "dtype": "float32",
        "vocab_size": about["llama.vocab_size"],
        "hidden_size": about["llama.embedding_length"],
        "intermediate_size": about["llama.feed_forward_length"],
        "num_hidden_layers": about["llama.block_count"],
        "num_attention_heads": about["llama.attention.head_count"],
        "num_key_value_heads": about["llama.attention.head_count_kv"],
        "max_position_embeddings": about["llama.context_length"],
        "rms_norm_eps": float(f"{about['llama.attention.layer_norm_rms_epsilon']:.6g}"),  # a 32-bit number in the file
        "rope_parameters": {"rope_type": "default", "rope_theta": about["llama.rope.freq_base"]},
        "tie_word_embeddings": True,
    }
    return make_config({**values, **special})


def llama_state(reader: Any, name: str) -> dict[str, Array]:
    """The weights of a GGUF file's Llama as float32, under transformers' names and in its layouts.

    Args:
        reader: A `gguf.GGUFReader`.
        name: Of the file, for messages.

    Raises:
        CheckpointMismatch: if a tensor is none of a Llama with tied embeddings.

    Source: llama.cpp's `convert_hf_to_gguf.py`, whose order of the rows of queries and keys is undone here: it pairs
        those that its rotary positions turn together, transformers has the first halves of a head before the second.
    """
    dequantize = import_extra("gguf.quants", "reading the language model's GGUF file").dequantize
    about = _values(reader)
    heads = {
        "attn_q": about["llama.attention.head_count"],
        "attn_k": about["llama.attention.head_count_kv"],
    }
    state = {}
    for tensor in reader.tensors:
        match = re.fullmatch(r"(?:blk\.(?P<block>\d+)\.)?(?P<part>\w+)\.weight", tensor.name)
        if match is None or match["part"] not in _NAMES:
            raise CheckpointMismatch(f"{name}: the tensor {tensor.name} is none of a Llama with tied embeddings")
        array: Array = dequantize(tensor.data, tensor.tensor_type)
        if (count := heads.get(match["part"])) is not None:
            pairs = array.reshape(count, len(array) // count // 2, 2, array.shape[1])
            array = pairs.swapaxes(1, 2).reshape(array.shape)
        below = "" if match["block"] is None else f"model.layers.{match['block']}."
        state[f"{below}{_NAMES[match['part']]}.weight"] = np.ascontiguousarray(array, np.float32)
    return state


def read_tokenizer(reader: Any, name: str) -> Any:
    r"""The tokenizer of a GGUF file, a `PreTrainedTokenizerFast`: byte-level BPE in which each digit stands alone.

    Args:
        reader: A `gguf.GGUFReader`.
        name: Of the file, for messages.

    Raises:
        CheckpointMismatch: if the file's tokenizer is of another kind.

    Source: llama.cpp's pre-tokenizer `smollm` (src/llama-vocab.cpp): `\p{N}`, then GPT-2's pattern.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    about = _values(reader)
    kind = tuple(about.get(_TOKENS + key) for key in ("model", "pre"))
    if kind != ("gpt2", "smollm"):
        raise CheckpointMismatch(f"{name} has a tokenizer of the kind {kind}; SmolLM2's is ('gpt2', 'smollm')")
    tokens: list[str] = about[_TOKENS + "tokens"]
    merges = [tuple(merge.split(" ")) for merge in about[_TOKENS + "merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    types = about[_TOKENS + "token_type"]
    control = [token for token, kind in zip(tokens, types, strict=True) if kind == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    ids = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    special = {f"{ours}_token": tokens[about[f"{_TOKENS}{theirs}_token_id"]] for ours, theirs in ids.items()}
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, add_prefix_space=False, **special
    )
    wrapped.chat_template = about.get("tokenizer.chat_template")
    return wrapped
