"""Arguments of transformers' `from_pretrained` in the terms of `load_pretrained`: translated, or refused.

What changes nothing here (`low_cpu_mem_usage`, safe files, no foreign code) is accepted with the value that holds.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from blip2_train.errors import ConfigError
from blip2_train.transformers_names import FOR_LOADING, holds_anyway

_ELSEWHERE = {
    "revision": "fetch it by `hf download <id> --revision <revision> --local-dir <folder>`, and load the folder",
    "variant": "fetch its files by `hf download`, and load the folder",
    "subfolder": "fetch it by `hf download`, and load the folder",
    "cache_dir": "set HF_HUB_CACHE",
    "force_download": "empty the folder of the model below HF_HUB_CACHE",
    "proxies": "set HTTPS_PROXY",
    "token": "set HF_TOKEN, or log in by `hf auth login`",
    "use_auth_token": "set HF_TOKEN, or log in by `hf auth login`",
    "local_files_only": "set HF_HUB_OFFLINE=1",
    "trust_remote_code": "code of others is never run",
    "attn_implementation": "torch chooses the kernel; blip2_train.models.attention_kernels turns single ones off",
    "generation_config": "give its values with each call, as model.caption(images, num_beams=5)",
    "max_memory": "a model is on one device; quantization='int8' or 'int4' makes it smaller",
    "offload_folder": "a model is on one device; quantization='int8' or 'int4' makes it smaller",
    "config": "the folder or file itself describes the model",
    "state_dict": "export the weights to a folder, and load that",
    "adapter_kwargs": "adapters of this project's exports are loaded by themselves",
}
"""What to do in place of each."""
_BITS = {"load_in_8bit": "int8", "load_in_4bit": "int4"}
_ALIKE: dict[str, tuple[Any, ...]] = {
    "bnb_4bit_quant_type": ("nf4", "fp4"),
    "bnb_4bit_use_double_quant": (False,),
    "llm_int8_enable_fp32_cpu_offload": (False,),
}
"""Values that are taken for ours: 4 bits are always `nf4` here, and `fp4` is what is there if nobody chooses."""


def translated(given: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `load_pretrained`, from its own and those of transformers.

    Args:
        given: Those that `load_pretrained` does not have itself.
        own: Its own `device`, `dtype` and `quantization`.

    Raises:
        ConfigError: if one is unknown, means nothing here, or contradicts another.

    Example:
        >>> translated({"torch_dtype": "auto", "device_map": "cuda:1"}, {"device": None, "dtype": None})
        {'device': 'cuda:1', 'dtype': None}
    """
    result = dict(own)
    if result.get("dtype") == "auto":
        result["dtype"] = None
    for name, value in given.items():
        key, meant = _one(name, value)
        if key is None or meant is None:
            continue
        if result.get(key) not in (None, "none") and result[key] != meant:
            raise ConfigError(f"{name}={value!r} and {key}={result[key]!r} are two different things; leave out one")
        result[key] = meant
    return result


def _one(name: str, value: Any) -> tuple[str | None, Any]:
    """Our argument and its value; None = nothing changes."""
    if name == "torch_dtype":
        return "dtype", None if value in (None, "auto") else value
    if name == "device_map":
        return "device", _device(value)
    if name in _BITS:
        return "quantization", _BITS[name] if value else None
    if name == "quantization_config":
        return "quantization", None if value is None else _quantization(value)
    if name in FOR_LOADING and holds_anyway(name, value, FOR_LOADING):
        return None, None
    if name in _ELSEWHERE:
        if value is None or value is False:
            return None, None
        raise ConfigError(f"load_pretrained has no {name}; {_ELSEWHERE[name]}")
    names = ["device", "dtype", "quantization", "vision_quantization", "language_model", "vision_weights", "tokenizer"]
    theirs = ["torch_dtype", "device_map", *_BITS, "quantization_config"]
    close = difflib.get_close_matches(name, [*names, "web", *theirs], 1)
    every = f"it has {', '.join(names)}, web, and of transformers {', '.join(theirs)}"
    hint = f"did you mean {close[0]}?" if close else every
    raise ConfigError(f"load_pretrained has no {name}; {hint}")


def _device(value: Any) -> str | None:
    """The one device of a map."""
    if isinstance(value, Mapping):
        if len(devices := set(value.values())) != 1:
            raise ConfigError(f"device_map names {len(devices)} devices; a model is on one here, as device='cuda:1'")
        value = devices.pop()
    if value is None or value == "auto":
        return None
    if value in ("balanced", "balanced_low_0", "sequential"):
        raise ConfigError(
            f"device_map={value!r} spreads a model over devices; here it is on one: leave it out for a GPU if there is "
            "one, or name it: device='cuda:1'"
        )
    return f"cuda:{value}" if isinstance(value, int) else str(value)


def _quantization(config: Any) -> str:
    """Our name of transformers' configuration of quantization."""
    values = dict(config) if isinstance(config, Mapping) else config.to_dict()
    chosen = [ours for name, ours in _BITS.items() if values.get(name)]
    other = [f"{name}={values[name]!r}" for name, same in _ALIKE.items() if values.get(name, same[0]) not in same]
    if chosen == ["int8"]:
        other = [text for text in other if not text.startswith("bnb_4bit")]
    if len(chosen) != 1 or other:
        what = ", ".join(other) or str(values.get("quant_method", "it"))
        raise ConfigError(f"quantization_config: {what} is not there; quantization='int8' or 'int4' (nf4) is")
    return chosen[0]
