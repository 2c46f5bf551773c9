"""Keys of transformers' language-model configurations: those that may be set, and those that would fetch something."""

from __future__ import annotations

from transformers import PretrainedConfig

from blip2_train.from_transformers import public_name

_FETCHED = frozenset(
    "attn_implementation experts_implementation auto_map custom_pipelines custom_generate trust_remote_code "
    "quantization_config compression_config kernel_config use_kernels adapter_kwargs gguf_file".split()
)
"""Keys of a configuration, without a first underscore, that stand for code or files which would be fetched."""
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
"""Which this project reads of every configuration."""
_NO_SETTINGS = frozenset(
    "base_config_key sub_configs_defaults attribute_map base_model_tp_plan base_model_fsdp_plan base_model_pp_plan "
    "base_model_ep_plan _auto_class extra_files extra_config_files model_type transformers_version architectures "
    "_name_or_path dtype torch_dtype".split()
)
"""What all of transformers' configurations have beside the sizes and choices of a model."""


def architecture_keys(kind: type[PretrainedConfig]) -> frozenset[str]:
    """The sizes and choices that a class of transformers' configurations has, by all their names."""
    try:
        keys = set(kind().to_dict())
    except Exception:  # one that cannot be made of defaults
        keys = set()
    keys |= {*getattr(kind, "__dataclass_fields__", ()), *kind.attribute_map, *_TOKENS}
    if "rope_parameters" in keys:  # their names before transformers 5
        keys |= {"rope_theta", "rope_scaling"}
    return frozenset(keys) - _NO_SETTINGS


def is_fetched(key: str) -> bool:
    """Whether a key of a configuration stands for code or files that would be fetched.

    Example:
        >>> is_fetched("_attn_implementation_internal"), is_fetched("hidden_size")
        (True, False)
    """
    return public_name(key) in _FETCHED
