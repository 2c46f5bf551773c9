"""`python scripts/convert_checkpoint.py <source> --to <folder or file>`: weights from any known format into another."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
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
from blip2_train.checkpoints.weight_sources import UNDERSTOOD
from blip2_train.cli.command_parser import CommandParser
from blip2_train.cli.terminal import run_command
from blip2_train.errors import ConfigError
from blip2_train.models.adapted_layers import is_adapter
from blip2_train.models.adapters import merge_adapters
from blip2_train.models.configs import DTYPES
from blip2_train.models.freezing import FROZEN_PARTS
from blip2_train.system.screen import echo

FORMATS = ("blip2_train", "huggingface", "lavis")
_FILES = (".pth", ".pt")


def main(arguments: list[str]) -> None:
    """Convert, and print what the source was and what became of it."""
    options = _options(arguments)
    target, form = Path(options.to).expanduser(), _format(options)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    loaded = open_pretrained(
        options.source,
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
        write_export(target, without_ties(state), loaded.config, loaded.processor.tokenizer, manifest)


def _with_parent(loaded: Pretrained) -> Manifest:
    """The manifest; of weights from elsewhere it names the trained ones."""
    if loaded.manifest.step > 0 or loaded.manifest.parent is not None:
        return loaded.manifest
    frozen = tuple(f"{part}." for part in FROZEN_PARTS)
    trained = {name: tensor for name, tensor in loaded.model.state_dict().items() if not name.startswith(frozen)}
    return replace(loaded.manifest, parent=fingerprint(trained))


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = CommandParser(
        prog="convert_checkpoint.py",
        description="Convert weights into another format; what the source is, is found out from its content.",
    )
    parser.add_argument("source", help=UNDERSTOOD)
    parser.add_argument("--to", required=True, help="folder to write, or file.pth for lavis; must not exist yet")
    parser.add_argument("--format", choices=FORMATS, help="default: lavis for a .pth file, else blip2_train")
    parser.add_argument(
        "--language-model", help="folder or hub id of the language model, if the source does not hold it"
    )
    parser.add_argument("--vision-weights", help="file with the tower's weights, or timm, if the source lacks them")
    parser.add_argument("--tokenizer", help="folder or hub id of the Q-Former's tokenizer, if the source lacks it")
    parser.add_argument("--dtype", choices=list(DTYPES), help="of the frozen parts; default: as stored or configured")
    return parser.parse_args(arguments)


def _format(options: argparse.Namespace) -> str:
    target = Path(options.to).expanduser()
    is_file = target.suffix in _FILES
    form = options.format or ("lavis" if is_file else "blip2_train")
    if is_file != (form == "lavis"):
        expected = "a file that ends in .pth" if form == "lavis" else "a folder"
        raise ConfigError(f"--to {options.to}: the format {form} is {expected}")
    if target.exists():
        raise ConfigError(f"--to {options.to} exists already; choose another name, or remove it first")
    return str(form)


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


def command() -> None:
    """Entry of the console script."""
    sys.exit(run_command(main))
