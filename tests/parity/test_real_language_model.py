"""The real language model, after its conversion: weights as transformers reads the GGUF file, and as its format says by
hand; tokens as byte-pair merging by hand gives them; and it writes English.
"""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from real_weights import PARTS, needs, original
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaForCausalLM

pytestmark = needs("smollm2", "gguf")

FOLDER = PARTS / "smollm2"
TEXTS = [
    "A photo of a cat, 25% off in 1999!",
    " two  blanks   in front\nand\tbehind \n\n",
    "I'm sure they'll say it's Müller's größter Käse",
    "日本語 😀 naïve – “quoted” №¾",
    "don'T end",
    "",
]


@pytest.mark.slow
def test_weights_are_those_that_transformers_reads(tmp_path: Path) -> None:
    path = original("smollm2", ".gguf", tmp_path)
    theirs = LlamaForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32)
    ours = load_file(FOLDER / "model.safetensors")
    state = theirs.state_dict()
    assert set(state) - set(ours) == {"lm_head.weight"} and set(ours) < set(state)
    assert [name for name, tensor in ours.items() if not torch.equal(tensor, state[name])] == []
    written, read = LlamaForCausalLM.config_class.from_pretrained(FOLDER), theirs.config
    for name in ("rope_parameters", "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_act"):
        assert getattr(written, name) == getattr(read, name), name
    assert written.rms_norm_eps == pytest.approx(read.rms_norm_eps)


@pytest.mark.slow
def test_quantized_rows_follow_the_format(tmp_path: Path) -> None:
    """Q4_1, by hand: 32 weights are `d * q + m`, two 16-bit numbers and 4 bits each, the low halves first."""
    import gguf

    reader = gguf.GGUFReader(original("smollm2", ".gguf", tmp_path))
    tensor = next(one for one in reader.tensors if one.name == "blk.3.ffn_up.weight")
    assert tensor.tensor_type.name == "Q4_1"
    blocks = tensor.data[7].reshape(-1, 20)
    scale, smallest = blocks[:, :4].copy().view(np.float16).astype(np.float32).T[:, :, None]
    numbers = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1)
    ours = load_file(FOLDER / "model.safetensors")["model.layers.3.mlp.up_proj.weight"][7]
    assert np.array_equal((scale * numbers + smallest).ravel(), ours.numpy())


def test_tokens_are_those_of_merging_by_hand(tmp_path: Path) -> None:
    import gguf

    fields = gguf.GGUFReader(original("smollm2", ".gguf", tmp_path)).fields
    tokens, merges = (fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "merges"))
    ids = {token: number for number, token in enumerate(tokens)}
    ranks = {tuple(merge.split(" ")): number for number, merge in enumerate(merges)}
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    assert len(tokenizer) == len(tokens) == 49152
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.bos_token == "<|im_start|>"
    for text in TEXTS:
        ours = tokenizer(text, add_special_tokens=False).input_ids
        assert ours == [ids[token] for part in _split(text) for token in _merged(part, ranks)], text
        assert tokenizer.decode(ours) == text
    assert tokenizer("<|im_start|>user").input_ids == [1, *tokenizer("user").input_ids]


@pytest.mark.slow
def test_it_continues_in_english() -> None:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    model = LlamaForCausalLM.from_pretrained(FOLDER).eval()
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        generated = model.generate(**prompt, max_new_tokens=2, do_sample=False)
    assert tokenizer.decode(generated[0, prompt.input_ids.shape[1] :]).startswith(" Paris")


def _split(text: str) -> list[str]:
    """Digits alone, then GPT-2's pattern, of `\\\\p{L}` and `\\\\p{N}` as unicodedata knows them."""
    parts: list[str] = []
    start = 0
    for at, letter in enumerate(text):
        if unicodedata.category(letter).startswith("N"):
            parts += [*_gpt2(text[start:at]), letter]
            start = at + 1
    return [*parts, *_gpt2(text[start:])]


def _gpt2(text: str) -> list[str]:
    """`'s|'t|'re|'ve|'m|'ll|'d| ?\\\\p{L}+| ?[^\\\\s\\\\p{L}\\\\p{N}]+|\\\\s+(?!\\\\S)|\\\\s+`, without numbers."""
    parts, at = [], 0
    while at < len(text):
        end = _end_of_part(text, at)
        parts.append(text[at:end])
        at = end
    return parts


def _end_of_part(text: str, at: int) -> int:
    for ending in ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d"):
        if text.startswith(ending, at):
            return at + len(ending)
    first = at + (text[at] == " " and at + 1 < len(text) and not text[at + 1].isspace())
    if not text[first].isspace():
        kind = unicodedata.category(text[first]).startswith("L")
        end = first
        while end < len(text) and not text[end].isspace() and unicodedata.category(text[end]).startswith("L") == kind:
            end += 1
        return end
    end = at
    while end < len(text) and text[end].isspace():
        end += 1
    return end if end == len(text) or end == at + 1 else end - 1


def _merged(part: str, ranks: dict[tuple[str, ...], int]) -> list[str]:
    """Byte-pair merging of one part: of all neighbours, those that the list has first are joined, again and again."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
    tokens = [letters[byte] for byte in part.encode()]
    while len(tokens) > 1:
        rank, at = min(
            (ranks.get(pair, sys.maxsize), n) for n, pair in enumerate(zip(tokens, tokens[1:], strict=False))
        )
        if rank == sys.maxsize:
            break
        tokens[at : at + 2] = [tokens[at] + tokens[at + 1]]
    return tokens
