"""Changes a folder that transformers 5 has written so that transformers 4 reads it, where the two differ.

Both then read the same model, tokenizer and image processor. Seen with transformers 4.57.6 and 5.24.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ANY_TOKENIZER = "PreTrainedTokenizerFast"
"""The class of a tokenizer that `tokenizer.json` defines alone; transformers 5 calls it `TokenizersBackend`."""
BERT_TOKENIZER = "BertTokenizer"
_OF_ONE_MACHINE = ("backend", "is_local", "local_files_only")
_ROPE_NAMES = {"gpt_neox": ("rotary_emb_base", "rotary_pct")}
"""Model types whose rotary base and share have other names than `rope_theta` and `partial_rotary_factor`."""


_COMPUTE_OTHERWISE = {
    "gemma": "multiplies what stands for an image by the square root of the embeddings' width",
    "gpt_neox": "expects the vocabulary head under another name, and initialises a random one",
}


def difference_from_4(model_type: str) -> str:
    """How transformers 4 computes such a language model otherwise, as a sentence; empty if no difference is known."""
    reason = _COMPUTE_OTHERWISE.get(model_type, "")
    return reason and f"Read it with transformers 5: for language models of type {model_type}, transformers 4 {reason}."


def make_readable(folder: Path, tokenizer: Any, untied_head: bool) -> None:
    """Rewrite the small files of a folder so that transformers 4.57 and 5 read the same from it.

    Args:
        folder: With a saved BLIP-2 configuration and `Blip2Processor`.
        tokenizer: The processor's.
        untied_head: Whether the weights hold a vocabulary head beside the embeddings of the language model.
    """
    _rewrite(folder / "config.json", lambda config: _config(config, untied_head))
    has_file = (folder / "tokenizer.json").is_file()
    _rewrite(folder / "tokenizer_config.json", lambda config: _tokenizer(config, tokenizer, has_file))
    _divide_processor(folder)


def _config(config: dict[str, Any], untied_head: bool) -> dict[str, Any]:
    text = config.get("text_config")
    if isinstance(text, dict):
        if Path(name := text.get("_name_or_path", "")).is_absolute():
            text["_name_or_path"] = Path(name).name
        if "scale_decoder_outputs" in text:  # transformers 5 writes that every T5 is tied, whatever its weights are
            text["tie_word_embeddings"] = not untied_head
        text |= _rotary(text)
    return config


def _rotary(text: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary embedding under the names of transformers 4, which takes its defaults for what it does not find."""
    stored = text.get("rope_parameters")
    if not isinstance(stored, Mapping):
        return {}
    local = stored.get("sliding_attention", {})
    whole = stored.get("full_attention", stored)
    base, share = _ROPE_NAMES.get(text.get("model_type", ""), ("rope_theta", "partial_rotary_factor"))
    names = {"rope_theta": base, "partial_rotary_factor": share}
    values = {names[key]: whole[key] for key in names if key in whole}
    if "rope_theta" in local:
        values["rope_local_base_freq"] = local["rope_theta"]
    if whole.get("rope_type", "default") != "default":
        values["rope_scaling"] = {key: value for key, value in whole.items() if key not in names}
    return values


def _tokenizer(config: dict[str, Any], tokenizer: Any, has_file: bool) -> dict[str, Any]:
    config = {key: value for key, value in config.items() if key not in _OF_ONE_MACHINE}
    extra = config.pop("extra_special_tokens", None)
    if extra:  # a list under this name ends transformers 4 with an AttributeError
        config["additional_special_tokens"] = list(extra)
    config["clean_up_tokenization_spaces"] = bool(getattr(tokenizer, "clean_up_tokenization_spaces", False))
    if config["tokenizer_class"].removesuffix("Fast") == BERT_TOKENIZER:
        config["tokenizer_class"] = BERT_TOKENIZER
    elif has_file:
        config["tokenizer_class"] = ANY_TOKENIZER
        config["model_input_names"] = ["input_ids", "attention_mask"]  # else transformers 4 adds token types
    return config


def _divide_processor(folder: Path) -> None:
    """The image processor in a file of its own, as older versions look for it."""
    whole = json.loads((folder / "processor_config.json").read_text(encoding="utf-8"))
    images = whole.pop("image_processor", None)
    if images is not None:
        _write(folder / "preprocessor_config.json", images | {"processor_class": whole["processor_class"]})
        _write(folder / "processor_config.json", whole)


def _rewrite(file: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    _write(file, change(json.loads(file.read_text(encoding="utf-8"))))


def _write(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
