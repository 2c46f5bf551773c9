"""The kind of given weights: an export or run folder, a Hugging Face folder or id, a LAVIS or Paddle file.

What a file or folder holds is found out from its content.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blip2_train.checkpoints.adapter_files import read_adapter
from blip2_train.checkpoints.convert.huggingface import describe_huggingface, read_huggingface
from blip2_train.checkpoints.convert.huggingface_config import is_blip2_config
from blip2_train.checkpoints.convert.lavis import read_lavis
from blip2_train.checkpoints.convert.paddle import locate_paddle, read_paddle
from blip2_train.checkpoints.export import MANIFEST, TOKENIZER, WEIGHTS, read_config_text, read_export, read_manifest
from blip2_train.checkpoints.files import read_file, weight_names
from blip2_train.checkpoints.foreign_weights import SourceWeights, held_parts
from blip2_train.checkpoints.hub import fetch, fetch_description, looks_like_hub_id
from blip2_train.checkpoints.source_kinds import UNDERSTOOD
from blip2_train.checkpoints.training_checkpoints import CHECKPOINTS
from blip2_train.errors import CheckpointMismatch
from blip2_train.transformers_names import ORIGINAL_WEIGHTS

_EXPORT = "export"
"""Folder of the export inside a run folder."""


@dataclass(frozen=True, kw_only=True)
class SourceDescription:
    """The description of weights, before they are loaded."""

    what: str
    """For messages: kind and location."""
    location: str
    """Path or hub id, from which `find_weights` reads them again."""
    stage: str
    """`stage1`, `stage2`, …"""
    foreign: bool
    """Whether it is no export of this project, and so converted while it is loaded."""
    architecture: dict[str, Any]
    """The model, as `build_model` reads it."""
    processor: dict[str, Any]
    """As `Processor.describe`; may be empty."""
    tokenizer: str
    """Folder with the tokenizer; empty = that of the language model, or of the BERT that the Q-Former started from."""
    held: frozenset[str]
    """The parts, of `vision_model` and `language_model`, that it holds itself."""


def find_weights(source: str | Path, language_model: str | None = None) -> SourceWeights:
    """Find out what a source is, and read it.

    Args:
        source: Path or hub id.
        language_model: Folder or hub id of the language model, for formats that do not name it.

    Raises:
        CheckpointMismatch: if it is unknown or damaged.
    """
    path, location = Path(source).expanduser(), str(source)
    if not path.exists() and looks_like_hub_id(location):
        path = fetch(location)
    if (own := _own_export(path)) is not None:
        return _read_own(own, location)
    if (paddle := locate_paddle(path)) is not None:
        return read_paddle(paddle, location, language_model)
    if is_blip2_config(path):
        return read_huggingface(path, location)
    if not path.exists():
        published = ORIGINAL_WEIGHTS.get(location)
        hint = f"the original code's weights of that name are Salesforce/{published}" if published else ""
        raise CheckpointMismatch(f"there is no {location}; {hint or f'what can be read is {UNDERSTOOD}'}")
    content = read_file(path) if path.is_file() else None
    if isinstance(content, dict) and "state_dict" in content and "blip2_train" in content:
        raise CheckpointMismatch(
            f"{location} is a training checkpoint; share its weights first: scripts/export.py {location}"
        )
    if (path / CHECKPOINTS).is_dir():
        raise CheckpointMismatch(
            f"the run in {location} has no export yet; finish it (resume_from={location}), or export what it has: "
            f"python scripts/export.py {location}"
        )
    weights = read_lavis(content, location, language_model)
    if weights is None:
        raise CheckpointMismatch(f"{location} is not known here; what can be read is {UNDERSTOOD}")
    return weights


def describe_source(source: str | Path, language_model: str | None = None) -> SourceDescription:
    """The description of a source; of a hub repository only the small files are fetched.

    Args:
        source: Path or hub id.
        language_model: As in `find_weights`.

    Raises:
        CheckpointMismatch: if it is unknown or damaged.
    """
    path, location = Path(source).expanduser(), str(source)
    if not path.exists() and looks_like_hub_id(location):
        path = fetch_description(location)
    if (own := _own_export(path)) is not None:
        manifest = read_manifest(own)
        return SourceDescription(
            what=f"export {location}",
            location=location,
            stage=manifest.stage,
            foreign=False,
            architecture=manifest.architecture,
            processor=manifest.processor,
            tokenizer=str(own / TOKENIZER),
            held=held_parts(weight_names(own / WEIGHTS)) if (own / WEIGHTS).is_file() else frozenset(),
        )
    if locate_paddle(path) is None and is_blip2_config(path):
        return _described(describe_huggingface(path, location))
    return _described(find_weights(source, language_model))


def require_source(source: str) -> None:
    """Find out, before anything else is loaded, whether weights are there.

    Args:
        source: Path or hub id.

    Raises:
        CheckpointMismatch: if there is no such file or folder, the hub has none, or a folder holds something else.
    """
    if Path(source).expanduser().is_file():
        return  # checked when it is read: a file may be large
    describe_source(source)


def is_source(name: str) -> bool:
    """Whether a name is one of a whole model, not of a tower or a language model alone.

    Of a hub repository the configuration is fetched; one without it is no source.
    """
    path = Path(name).expanduser()
    if not path.exists() and looks_like_hub_id(name):
        try:
            path = fetch_description(name)
        except CheckpointMismatch:
            return False
    if path.is_dir():
        return _own_export(path) is not None or locate_paddle(path) is not None or is_blip2_config(path)
    if not path.is_file() or path.suffix == ".safetensors":
        return False
    return locate_paddle(path) is not None or _is_lavis(read_file(path))


def _is_lavis(content: Any) -> bool:
    theirs = content.get("model", content) if isinstance(content, dict) else None
    return isinstance(theirs, Mapping) and any(str(key).startswith("Qformer.") for key in theirs)


def _own_export(path: Path) -> Path | None:
    return next((folder for folder in (path, path / _EXPORT) if (folder / MANIFEST).is_file()), None)


def _described(weights: SourceWeights) -> SourceDescription:
    return SourceDescription(
        what=weights.what,
        location=weights.location,
        stage=weights.manifest.stage,
        foreign=True,
        architecture=weights.description,
        processor=weights.processor,
        tokenizer=weights.tokenizer,
        held=weights.held,
    )


def _read_own(folder: Path, location: str) -> SourceWeights:
    state, manifest = read_export(folder)
    return SourceWeights(
        source=f"blip2_train export ({manifest.stage})",
        location=location,
        description=manifest.architecture,
        state=state,
        processor=manifest.processor,
        adapters=read_adapter(folder, manifest.adapter_sha256),
        tokenizer=str(folder / TOKENIZER),
        manifest=manifest,
        config=read_config_text(folder),
    )


def same_location(one: str, other: str) -> bool:
    """Whether two names are the same file, folder or hub id."""
    paths = [Path(name).expanduser() for name in (one, other)]
    return one == other or (all(path.exists() for path in paths) and paths[0].samefile(paths[1]))
