"""Weights from any known format into another, complete or not at all."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import transformers

from blip2_train.checkpoints.assembly import without_ties
from blip2_train.checkpoints.export import Manifest, write_export
from blip2_train.checkpoints.files import fingerprint
from blip2_train.checkpoints.foreign_exports.huggingface import write_huggingface
from blip2_train.checkpoints.foreign_exports.lavis import write_lavis
from blip2_train.checkpoints.pretrained import Pretrained, open_pretrained
from blip2_train.errors import ConfigError
from blip2_train.models.adapted_layers import is_adapter
from blip2_train.models.adapters import merge_adapters
from blip2_train.models.freezing import FROZEN_PARTS
from blip2_train.system.screen import echo
from blip2_train.training.earlier_runs import find_source


def convert(options: argparse.Namespace, target: Path, form: str) -> None:
    """Convert, and print what the source was and what became of it.

    Args:
        options: Of the command.
        target: File or folder to write.
        form: One of the command's formats.
    """
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    loaded = open_pretrained(
        find_source(options.source, "outputs", "source"),
        dtype=options.dtype,
        language_model=options.language_model,
        vision_weights=options.vision_weights,
        tokenizer=options.tokenizer,
    )
    echo(f"source: {loaded.source}")
    for report in loaded.reports:
        echo("\n".join(report.lines()))
    with _complete_or_nothing(target) as unfinished:
        _write(loaded, unfinished, form)
    echo(f"written: {target} ({form}, {_size(target) / 2**20:,.1f} MiB)")


def _write(loaded: Pretrained, target: Path, form: str) -> None:
    manifest = _with_parent(loaded)
    adapted = loaded.model.adapters is not None
    if adapted and form == "lavis":
        raise ConfigError("--format lavis holds no language model, and so none of its adapters; choose huggingface")
    if form == "huggingface":
        if adapted:
            merge_adapters(loaded.model)
            echo("adapters: merged into the language model")
        write_huggingface(target, loaded.model, loaded.processor, manifest, loaded.config)
    elif form == "lavis":
        trained = not loaded.model.vision_config.frozen
        with_tower = trained or "vision_model" in loaded.held
        write_lavis(target, loaded.model, with_tower=with_tower, manifest=manifest, config=loaded.config)
    else:
        left_out = tuple(f"{part}." for part in FROZEN_PARTS if part not in loaded.held)
        state = {
            name: tensor
            for name, tensor in loaded.model.state_dict().items()
            if is_adapter(name) or not name.startswith(left_out)
        }
        write_export(target, without_ties(state), loaded.config, loaded.processor.own_tokenizer, manifest)


def _with_parent(loaded: Pretrained) -> Manifest:
    """The manifest; of weights from elsewhere it names the trained ones."""
    if loaded.manifest.step > 0 or loaded.manifest.parent is not None:
        return loaded.manifest
    frozen = tuple(f"{part}." for part in FROZEN_PARTS)
    trained = {name: tensor for name, tensor in loaded.model.state_dict().items() if not name.startswith(frozen)}
    return replace(loaded.manifest, parent=fingerprint(trained))


@contextmanager
def _complete_or_nothing(target: Path) -> Iterator[Path]:
    """A path beside the target to write to, which gets the target's name only when all is written."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield beside / target.name
        os.replace(beside / target.name, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
