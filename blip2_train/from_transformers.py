"""Every call into transformers that reads files of others: none of them may run code that lies beside the files.

transformers runs the code of a repository with `trust_remote_code=True`, and prompts on the terminal without a value.
Here there is no prompt, and a repository that needs its code is refused in one line.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from blip2_train.errors import CheckpointMismatch
from blip2_train.system.screen import plain_logs

_OWN_CODE = "trust_remote_code"
"""Part of every message of transformers about a repository with code."""
_FROM_FILES = (None, "eager", "sdpa")
"""Attention implementations that a file may name; all others are fetched, or stand for what is."""
_IMPLEMENTATIONS = ("attn_implementation", "experts_implementation")


def load_config(kind: Any, location: str | Path, **options: Any) -> Any:
    """A configuration from a folder or of a hub id; which attention is computed with is never the file's choice.

    Args:
        kind: `AutoConfig`, or a class of configurations.
        location: Folder or hub id.
        **options: Options of `from_pretrained`.

    Raises:
        CheckpointMismatch: if it needs code of its own, or names an implementation that would be fetched.
        Exception: whatever else transformers raises.
    """
    from transformers import PretrainedConfig

    with _no_foreign_code(location):
        config = kind.from_pretrained(location, trust_remote_code=False, **options)
        values, _ = PretrainedConfig.get_config_dict(location, **options)
    _refuse_implementations(values, location)
    _reset_implementations(config)
    return config


def make_config(values: Mapping[str, Any]) -> Any:
    """The configuration of plain values with `model_type`.

    Raises:
        Exception: whatever transformers raises, a KeyError without `model_type`.
    """
    rest = dict(values)
    return _auto_config().for_model(rest.pop("model_type"), **rest)


def load_tokenizer(kind: Any, location: str | Path, **options: Any) -> Any:
    """A tokenizer; arguments and errors as for `load_config`."""
    with _no_foreign_code(location):
        return kind.from_pretrained(location, trust_remote_code=False, **options)


def load_processor(kind: Any, location: str | Path, **options: Any) -> Any:
    """A processor with its tokenizer; arguments and errors as for `load_config`."""
    with _no_foreign_code(location):
        return kind.from_pretrained(location, trust_remote_code=False, **options)


def load_model(kind: Any, location: str | Path | None, *, config: Any = None, **options: Any) -> Any:
    """A model with its weights, as `from_pretrained` gives it; errors as for `load_config`.

    Args:
        kind: `AutoModelForCausalLM` and the like, or a class of models.
        location: Folder or hub id; None if `config` and `state_dict` are given.
        config: None = that of `location`.
        **options: Options of `from_pretrained`.
    """
    if config is None:
        assert location is not None
        config = load_config(getattr(kind, "config_class", None) or _auto_config(), location, **_where(options))
    with _no_foreign_code(location or config.model_type):
        return kind.from_pretrained(location, config=config, trust_remote_code=False, **options)


def empty_model(kind: Any, config: Any, **options: Any) -> Any:
    """A model of a configuration, with random weights (`from_config`); errors as for `load_config`.

    Args:
        kind: `AutoModelForCausalLM` and the like.
        config: A configuration.
        **options: Options of `from_config`.
    """
    with _no_foreign_code(config.model_type):
        return kind.from_config(config, trust_remote_code=False, **options)


def public_name(key: str) -> str:
    """The name without the marks by which transformers keeps a key of a configuration to itself.

    Example:
        >>> public_name("_attn_implementation_internal")
        'attn_implementation'
    """
    return key.removeprefix("_").removesuffix("_internal")


@contextmanager
def refuse_remote_code(location: str | Path) -> Iterator[None]:
    """For libraries that call transformers themselves: where it would prompt whether to run remote code, it refuses.

    Raises:
        CheckpointMismatch: as `load_config`.
    """
    from transformers import dynamic_module_utils

    seconds = dynamic_module_utils.TIME_OUT_REMOTE_CODE
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0
    try:
        with _no_foreign_code(location):
            yield
    finally:
        dynamic_module_utils.TIME_OUT_REMOTE_CODE = seconds


@contextmanager
def _no_foreign_code(location: str | Path) -> Iterator[None]:
    plain_logs(logging.getLogger("transformers").handlers)  # which tell what files say
    try:
        yield
    except (ValueError, ImportError, EOFError) as error:
        if _OWN_CODE not in str(error):
            raise
        raise CheckpointMismatch(
            f"{location} cannot be read without Python code that lies beside it (auto_map in its JSON files), and "
            "foreign code is never run; give a model that transformers knows by itself (its model_type), or a copy "
            "that was saved as one"
        ) from None


def _auto_config() -> Any:
    from transformers import AutoConfig

    return AutoConfig


def _where(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: options[key] for key in ("local_files_only",) if key in options}


def _refuse_implementations(values: Mapping[str, Any], location: str | Path) -> None:
    """Refuse a file that names an implementation of the hub, which would be code.

    What counts is the file: which of these keys transformers takes from it differs (5.25 passes over those with a first
    underscore, 5.24 does not).

    Raises:
        CheckpointMismatch: naming the key.
    """
    for key, stated in values.items():
        inner = stated if isinstance(stated, Mapping) else {}
        if public_name(key) in _IMPLEMENTATIONS:
            if any("/" in str(name) for name in inner.values() or [stated]):
                raise CheckpointMismatch(
                    f"{location}: its configuration names the implementation {stated!r}, which is code of the hub and "
                    f"is never run; take {key} out of its config.json"
                )
        else:
            _refuse_implementations(inner, location)


def _reset_implementations(config: Any) -> None:
    """Leave transformers its own choice where a file names another, in a configuration and those inside it."""
    for part in (config, *(getattr(config, name, None) for name in config.sub_configs)):
        for key in map("_{}".format, _IMPLEMENTATIONS):
            if getattr(part, key, None) not in _FROM_FILES:
                setattr(part, key, None)
