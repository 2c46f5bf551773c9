"""A Llama that is written as GGUF, as llama.cpp's converter writes it, computes the same after its way back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from real_parts.language_model import convert_language_model
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from blip2_train.errors import CheckpointMismatch

TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *"abc", "Ġ", "1", "9", "Ġa", "ab", "19"]
MERGES = ["Ġ a", "a b", "1 9"]
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


@pytest.fixture
def llama() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(TOKENS), hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-5, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def paired(array: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Rows of queries or keys in llama.cpp's order (`LlamaModel.permute` of its converter)."""
    halves = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
    return halves.swapaxes(1, 2).reshape(array.shape)


def write_gguf(model: LlamaForCausalLM, path: Path, pre: str = "smollm", extra: str = "") -> None:
    """The model as a GGUF file, one of its matrices in 8 bits, which it holds exactly."""
    config, writer = model.config, gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] * 3 + [1] * (len(TOKENS) - 3))
    writer.add_token_merges(MERGES)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{{ messages }}")
    for name, tensor in model.model.state_dict().items():
        array = tensor.numpy()
        *block, part = name.removesuffix(".weight").removeprefix("layers.").split(".", 1)
        stem = {"embed_tokens": "token_embd", "norm": "output_norm"}.get(part) or f"blk.{block[0]}.{NAMES[part]}"
        if stem.endswith(("attn_q", "attn_k")):
            array = paired(array, config.num_attention_heads if stem.endswith("q") else config.num_key_value_heads)
        if stem == "blk.1.ffn_up":
            packed = gguf.quants.quantize(array, gguf.GGMLQuantizationType.Q8_0)
            tensor.copy_(torch.from_numpy(gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.Q8_0)))
            writer.add_tensor(f"{stem}.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(f"{stem}.weight", array)
    if extra:
        writer.add_tensor(extra, np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def converted(path: Path) -> Path:
    folder = path.parent / "converted"
    folder.mkdir(exist_ok=True)
    convert_language_model({path.name: path}, folder)
    return folder


def test_it_computes_the_same(llama: LlamaForCausalLM, tmp_path: Path) -> None:
    write_gguf(llama, tmp_path / "model.gguf")
    ours = AutoModelForCausalLM.from_pretrained(converted(tmp_path / "model.gguf")).eval()
    ids = torch.randint(len(TOKENS), (2, 9))
    with torch.no_grad():
        torch.testing.assert_close(ours(ids).logits, llama(ids).logits)
    assert ours.config.rms_norm_eps == 1e-5 and ours.generation_config.eos_token_id == 2


def test_digits_stand_alone_and_texts_come_back(llama: LlamaForCausalLM, tmp_path: Path) -> None:
    write_gguf(llama, tmp_path / "model.gguf")
    tokenizer = AutoTokenizer.from_pretrained(converted(tmp_path / "model.gguf"))
    ids = tokenizer("ab a 19").input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == ["ab", "Ġa", "Ġ", "1", "9"], "19 is a token, and is not used"
    assert tokenizer.decode(ids) == "ab a 19"
    assert tokenizer("a<|im_end|>").input_ids == [3, 2] and tokenizer.eos_token_id == tokenizer.pad_token_id == 2
    assert tokenizer.chat_template == "{{ messages }}"


def test_what_is_no_such_file_is_named(llama: LlamaForCausalLM, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(llama, path, pre="llama-bpe")
    with pytest.raises(CheckpointMismatch, match=r"tokenizer of the kind \('gpt2', 'llama-bpe'\)"):
        converted(path)
    write_gguf(llama, path, extra="blk.0.ffn_gate_exps.weight")
    with pytest.raises(CheckpointMismatch, match=r"the tensor blk\.0\.ffn_gate_exps\.weight is none of a Llama"):
        converted(path)
