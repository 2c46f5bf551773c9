"""The files of a language model on disk or on the hub: their kind, and the special tokens that they state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from blip2_train.errors import CheckpointMismatch
from blip2_train.hub import find_hub
from blip2_train.system.records import JsonObject, read_record

GENERATION_CONFIG = "generation_config.json"
_CONFIG, _ADAPTER = "config.json", "adapter_config.json"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")


@dataclass(frozen=True)
class StatedTokens:
    """Special tokens, as ids, that the configuration files beside a language model state; the defaults of its family,
    which transformers fills in for a model that states none, are not among them.
    """

    starts: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    """Every token at which the model ends a text, those of `generation_config.json` first."""
    pads: tuple[int, ...] = ()


def locate_language_model(name: str) -> str:
    """The argument for transformers: the folder, or the hub id.

    Args:
        name: Folder or hub id.

    Raises:
        CheckpointMismatch: if it is something else than a language model: a peft adapter, a GGUF file, an ONNX graph.
    """
    folder = Path(name).expanduser()
    if folder.is_file() and folder.suffix != ".gguf":
        raise CheckpointMismatch(f"language model {name} is a file; give the folder that contains it")
    _refuse_other_kinds(name, files_of(name))
    return str(folder) if folder.exists() else name


def stated_tokens(name: str) -> StatedTokens:
    """The special tokens that `generation_config.json` and `config.json` of a language model state.

    Args:
        name: Folder or hub id, as `locate_language_model` gives it.
    """
    ids_by_key: dict[str, list[int]] = {"bos_token_id": [], "eos_token_id": [], "pad_token_id": []}
    config = _read(name, _CONFIG)
    for values in (_read(name, GENERATION_CONFIG), config, config.get("text_config")):
        for key, known in ids_by_key.items():
            stated = values.get(key) if isinstance(values, dict) else None
            listed = stated if isinstance(stated, list) else [stated]
            known += [item for item in listed if type(item) is int and item >= 0 and item not in known]
    return StatedTokens(*(tuple(known) for known in ids_by_key.values()))


def files_of(name: str) -> tuple[str, ...]:
    """Names of a language model's files, as `onnx/model.onnx`; empty if they cannot be known.

    Args:
        name: Folder or hub id.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return (path.name,)
    return _below([path]) if path.is_dir() else _files_on_hub(name)


def _refuse_other_kinds(name: str, files: tuple[str, ...]) -> None:
    if _ADAPTER in files:
        base = _read(name, _ADAPTER).get("base_model_name_or_path") or "its base model"
        raise CheckpointMismatch(
            f"language model {name} is a peft adapter of {base} ({_ADAPTER}), not a whole model: merge it "
            "(peft: AutoPeftModelForCausalLM.from_pretrained(…).merge_and_unload().save_pretrained(<folder>)) and give "
            "that folder with its tokenizer, or give the base model"
        )
    if any(file.endswith(_WEIGHTS) for file in files):
        return
    for ending, kind, why in (
        (".gguf", "a GGUF file", "weights for llama.cpp"),
        (".onnx", "an ONNX graph", "a program for inference, through which no gradient passes"),
    ):
        if first := next((file for file in files if file.endswith(ending)), None):
            raise CheckpointMismatch(
                f"language model {name} is {kind} ({first}), {why}; give the folder or hub id of the original model, "
                "with safetensors"
            )


@cache
def _files_on_hub(name: str) -> tuple[str, ...]:
    """Names of a hub repository's files; without the hub, of what is in the local cache."""
    from huggingface_hub import constants, list_repo_files, try_to_load_from_cache

    find_hub(name)
    try:
        if not constants.is_offline_mode():
            return tuple(list_repo_files(name))
    except Exception:  # the hub's client raises whatever its transport raises; transformers reports what is wrong
        pass
    try:
        cached = [try_to_load_from_cache(name, file) for file in (_CONFIG, _ADAPTER)]
    except ValueError:  # no hub id
        return ()
    return _below(Path(file).parent for file in cached if isinstance(file, str))


def _below(folders: Iterable[Path]) -> tuple[str, ...]:
    """Names of the files in folders and in those inside, as `onnx/model.onnx`."""
    return tuple(
        str(path.relative_to(folder)) for folder in folders for path in sorted([*folder.glob("*"), *folder.glob("*/*")])
    )


def _read(name: str, file: str) -> dict[str, Any]:
    """A JSON object of a language model's files; empty if there is none.

    Raises:
        CheckpointMismatch: if it cannot be read.
    """
    path = Path(name).expanduser() / file
    if not path.parent.is_dir():
        from transformers.utils import cached_file

        if file not in _files_on_hub(name):
            return {}
        try:
            path = Path(str(cached_file(name, file)))
        except OSError:
            return {}
    return read_record(path, JsonObject, "download it again") if path.is_file() else {}
