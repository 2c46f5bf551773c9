"""Tiny language models of ten families, with their tokenizers in the arrangement of the published files.

Which files there are, which class they name, which tokens are special and under which ids, what the post-processor adds
and what the configuration files state is as on the hub; vocabularies are trained here, on a few sentences.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

SENTENCES = [
    "a photo of a cat",
    "a dog on a mat",
    "a red fox and two birds in a tree",
    "Question: what is it? Answer: a cat",
] * 3
_SPLIT = (  # of Llama 3 and Qwen2
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SMALL = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip
_BART = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 128,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of published language models. Tokens are named by their text; "" = the file does not state it."""

    write: Callable[[Path], None]
    """Writes the tokenizer's files into a folder."""
    model_type: str
    sizes: Mapping[str, Any] = field(default_factory=lambda: _SMALL)
    config: Mapping[str, str] = field(default_factory=dict)
    """Special tokens in `config.json`."""
    generation: Mapping[str, str | list[str]] = field(default_factory=dict)
    """Special tokens in `generation_config.json`."""
    more_rows: int = 0
    """Rows of the embedding without a token."""
    encoder_decoder: bool = False
    start: tuple[str, ...] = ()
    """What stands in front of every text."""
    end: str
    """What training is to teach."""
    more_ends: tuple[str, ...] = ()
    """Where generation is to stop too."""
    pad: str


def write_language_model(name: str, folder: Path) -> Path:
    """The folder of a tiny model of a family, as it would be downloaded."""
    family = FAMILIES[name]
    folder.mkdir(parents=True)
    family.write(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": family.model_type}))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = len(tokenizer) + family.more_rows
    stated = _ids(tokenizer, family.config)
    config = AutoConfig.for_model(family.model_type, vocab_size=rows, **family.sizes, **stated)
    torch.manual_seed(0)
    kind = AutoModelForSeq2SeqLM if family.encoder_decoder else AutoModelForCausalLM
    model = kind.from_config(config)
    if family.model_type == "t5":  # FlanT5 has a head of its own, which transformers 5 ties when it builds one
        model.lm_head.weight = nn.Parameter(torch.empty(rows, 32))
    generator = torch.Generator().manual_seed(1)
    scale = 0.1 if family.model_type == "t5" else 0.25  # nothing keeps the states of T5 from growing
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
        if family.model_type == "t5":  # the sentinels are never generated
            model.lm_head.weight[tokenizer.get_vocab()["<extra_id_99>"] :] *= 0.01
    model.save_pretrained(folder)
    written = json.loads((folder / "config.json").read_text())
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):  # not the defaults of the library's class
        written.pop(key, None)
    if family.model_type == "t5":  # the published file, not what transformers 5 makes of it
        written.pop("scale_decoder_outputs")
        written["tie_word_embeddings"] = False
    (folder / "config.json").write_text(json.dumps(written | stated, indent=2))
    (folder / "generation_config.json").write_text(json.dumps(_ids(tokenizer, family.generation), indent=2))
    return folder


def write_vocabulary_files(folder: Path, first: tuple[str, ...] = (), last: tuple[str, ...] = ()) -> None:
    """`vocab.json` and `merges.txt` of a byte BPE, with special tokens at either end."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.train_from_iterator([f"{text}\n" for text in SENTENCES], _trainer(320, first))
    core.model.save(str(folder))
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    vocabulary |= {token: len(vocabulary) + index for index, token in enumerate(last)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")


def _ids(tokenizer: Any, tokens: Mapping[str, str | list[str]]) -> dict[str, Any]:
    def known(token: str) -> int:
        return int(tokenizer.get_vocab()[token])

    return {
        key: [known(token) for token in value] if isinstance(value, list) else known(value)
        for key, value in tokens.items()
    }


def _trainer(size: int, first: tuple[str, ...] = ()) -> Any:
    bytes_first = sorted(pre_tokenizers.ByteLevel.alphabet())
    return trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(first), initial_alphabet=bytes_first, show_progress=False
    )


def _describe(folder: Path, **values: Any) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(values, indent=2), encoding="utf-8")


def _opt(folder: Path) -> None:
    """No `tokenizer.json`; `</s>` is start, end and unknown token."""
    write_vocabulary_files(folder, first=("<s>", "<pad>", "</s>", "<unk>"))
    special = {"unk_token": "</s>", "bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    _describe(
        folder, errors="replace", **special, add_prefix_space=False, add_bos_token=True, tokenizer_class="GPT2Tokenizer"
    )


def _t5(folder: Path) -> None:
    core = Tokenizer(models.Unigram())
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    special = ["<pad>", "</s>", "<unk>"]
    core.train_from_iterator(
        SENTENCES,
        trainers.UnigramTrainer(vocab_size=80, special_tokens=special, unk_token="<unk>", show_progress=False),
    )
    core.decoder = decoders.Metaspace(prepend_scheme="always")
    sentinels = [f"<extra_id_{number}>" for number in range(100)]
    core.add_special_tokens([AddedToken(token, special=True) for token in reversed(sentinels)])
    core.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    core.save(str(folder / "tokenizer.json"))
    _describe(
        folder, eos_token="</s>", unk_token="<unk>", pad_token="<pad>", extra_ids=100,
        additional_special_tokens=sentinels, tokenizer_class="T5Tokenizer", sp_model_kwargs={}, model_max_length=512,
    )  # fmt: skip


def _sentencepiece(folder: Path, first: tuple[str, ...], start: str) -> None:
    """A BPE of SentencePiece: tokens with `▁`, single bytes for what is unknown, a start token from its template."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    single = tuple(f"<0x{byte:02X}>" for byte in range(256))
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=[*first, *single], show_progress=False)
    bpe.train_from_iterator(SENTENCES, trainer)
    trained = json.loads(bpe.to_str())["model"]
    merges = [tuple(merge) for merge in trained["merges"]]
    core = Tokenizer(models.BPE(trained["vocab"], merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    blanks: list[Any] = [normalizers.Replace(" ", "▁")]
    ending: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if start == "<s>":  # Llama 2 and Mistral; Gemma puts no blank in front
        blanks, ending = [normalizers.Prepend("▁"), *blanks], [*ending, decoders.Strip(" ", 1, 0)]
    core.normalizer, core.decoder = normalizers.Sequence(blanks), decoders.Sequence(ending)
    core.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in first])
    template = processors.TemplateProcessing(f"{start} $A", special_tokens=[(start, first.index(start))])
    core.post_processor = template
    core.save(str(folder / "tokenizer.json"))


def _llama_2(folder: Path) -> None:
    _sentencepiece(folder, ("<unk>", "<s>", "</s>"), "<s>")
    _describe(
        folder, add_bos_token=True, add_eos_token=False, bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        pad_token=None, legacy=False, tokenizer_class="LlamaTokenizer",
    )  # fmt: skip


def _gemma(folder: Path) -> None:
    _sentencepiece(folder, ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"), "<bos>")
    _describe(
        folder, add_bos_token=True, add_eos_token=False, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>",
        pad_token="<pad>", additional_special_tokens=["<start_of_turn>", "<end_of_turn>"],
        tokenizer_class="GemmaTokenizer",
    )  # fmt: skip


def _llama_3(folder: Path) -> None:
    core = Tokenizer(models.BPE(ignore_merges=True))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_SPLIT), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    core.train_from_iterator([f"{text}\n" for text in SENTENCES], _trainer(320))
    core.decoder = decoders.ByteLevel()
    special = ("<|begin_of_text|>", "<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")
    core.add_special_tokens([AddedToken(token, special=True) for token in special])
    begin = core.token_to_id(special[0])
    added = processors.TemplateProcessing(f"{special[0]} $A", special_tokens=[(special[0], begin)])
    core.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), added])
    core.save(str(folder / "tokenizer.json"))
    _describe(
        folder, bos_token=special[0], eos_token="<|eot_id|>", model_input_names=["input_ids", "attention_mask"],
        tokenizer_class="PreTrainedTokenizerFast",
    )  # fmt: skip


def _qwen2(folder: Path) -> None:
    turns = ("<|im_start|>", "<|im_end|>")
    write_vocabulary_files(folder, last=("<|endoftext|>", *turns))
    _describe(
        folder, add_prefix_space=False, bos_token=None, eos_token="<|endoftext|>", pad_token="<|endoftext|>",
        unk_token=None, additional_special_tokens=list(turns), errors="replace", tokenizer_class="Qwen2Tokenizer",
    )  # fmt: skip


def _gpt2(folder: Path) -> None:
    write_vocabulary_files(folder, last=("<|endoftext|>",))
    _describe(folder, model_max_length=1024)


def _phi(folder: Path) -> None:
    write_vocabulary_files(folder, last=("<|endoftext|>",))
    end = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    _describe(folder, add_prefix_space=False, **end, tokenizer_class="CodeGenTokenizer")


def _bart(folder: Path) -> None:
    write_vocabulary_files(folder, first=("<s>", "<pad>", "</s>", "<unk>"), last=("<mask>",))
    _describe(folder, model_max_length=1024)


_END = "<|endoftext|>"
FAMILIES = {
    "opt": Family(
        write=_opt, model_type="opt", more_rows=7,
        sizes={"hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 48, "num_hidden_layers": 2,
               "num_attention_heads": 2, "max_position_embeddings": 128},
        config={"bos_token_id": "</s>", "eos_token_id": "</s>", "pad_token_id": "<pad>"},
        generation={"bos_token_id": "</s>", "eos_token_id": "</s>", "pad_token_id": "<pad>"},
        start=("</s>",), end="</s>", pad="<pad>",
    ),
    "t5": Family(
        write=_t5, model_type="t5", encoder_decoder=True, more_rows=28,
        sizes={"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2,
               "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        config={"eos_token_id": "</s>", "pad_token_id": "<pad>", "decoder_start_token_id": "<pad>"},
        generation={"eos_token_id": "</s>", "pad_token_id": "<pad>", "decoder_start_token_id": "<pad>"},
        end="</s>", pad="<pad>",
    ),
    "llama_2": Family(
        write=_llama_2, model_type="llama", config={"bos_token_id": "<s>", "eos_token_id": "</s>"},
        generation={"bos_token_id": "<s>", "eos_token_id": "</s>"}, start=("<s>",), end="</s>", pad="</s>",
    ),
    "llama_3": Family(
        write=_llama_3, model_type="llama",
        config={"bos_token_id": "<|begin_of_text|>", "eos_token_id": "<|end_of_text|>"},
        generation={"bos_token_id": "<|begin_of_text|>",
                    "eos_token_id": ["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"]},
        start=("<|begin_of_text|>",), end="<|eot_id|>", more_ends=("<|end_of_text|>", "<|eom_id|>"), pad="<|eot_id|>",
    ),
    "qwen2": Family(
        write=_qwen2, model_type="qwen2", more_rows=9, config={"bos_token_id": _END, "eos_token_id": _END},
        generation={"bos_token_id": _END, "eos_token_id": _END, "pad_token_id": _END}, end=_END, pad=_END,
    ),
    "gemma": Family(
        write=_gemma, model_type="gemma", sizes={**_SMALL, "head_dim": 16},
        config={"bos_token_id": "<bos>", "eos_token_id": "<eos>", "pad_token_id": "<pad>"},
        generation={"bos_token_id": "<bos>", "eos_token_id": ["<eos>", "<end_of_turn>"], "pad_token_id": "<pad>"},
        start=("<bos>",), end="<eos>", more_ends=("<end_of_turn>",), pad="<pad>",
    ),
    "mistral": Family(
        write=_llama_2, model_type="mistral", sizes={**_SMALL, "num_key_value_heads": 1},
        config={"bos_token_id": "<s>", "eos_token_id": "</s>"},
        generation={"bos_token_id": "<s>", "eos_token_id": "</s>"}, start=("<s>",), end="</s>", pad="</s>",
    ),
    "gpt2": Family(
        write=_gpt2, model_type="gpt2", sizes={"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128},
        config={"bos_token_id": _END, "eos_token_id": _END},
        generation={"bos_token_id": _END, "eos_token_id": _END}, end=_END, pad=_END,
    ),
    "phi": Family(
        write=_phi, model_type="phi", more_rows=5, config={"bos_token_id": _END, "eos_token_id": _END},
        generation={"bos_token_id": _END, "eos_token_id": _END}, end=_END, pad=_END,
    ),
    "bart": Family(
        write=_bart, model_type="bart", encoder_decoder=True, sizes=_BART,
        config={"bos_token_id": "<s>", "eos_token_id": "</s>", "pad_token_id": "<pad>",
                "decoder_start_token_id": "</s>", "forced_bos_token_id": "<s>", "forced_eos_token_id": "</s>"},
        generation={"bos_token_id": "<s>", "eos_token_id": "</s>", "pad_token_id": "<pad>",
                    "decoder_start_token_id": "</s>", "forced_bos_token_id": "<s>", "forced_eos_token_id": "</s>"},
        start=("<s>",), end="</s>", pad="<pad>",
    ),
}  # fmt: skip
