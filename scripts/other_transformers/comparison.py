"""Reads exports by two versions of transformers, and compares what they make of the same images."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image

from blip2_train.checkpoints.convert.huggingface_config import is_blip2_config
from blip2_train.checkpoints.foreign_exports.huggingface import write_huggingface
from blip2_train.checkpoints.pretrained import open_pretrained
from blip2_train.errors import ConfigError
from blip2_train.models.adapters import merge_adapters
from blip2_train.system.screen import echo
from blip2_train.training.earlier_runs import find_source
from other_transformers import reading
from other_transformers.demo_models import write_demo_images, write_demo_models

IMAGES = 8
TOLERANCE = 1e-4
"""Of scores; captions have to be equal."""


def compare(options: argparse.Namespace) -> bool:
    """Export, read twice, compare; whether all is the same."""
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="blip2_train_") as name:
        work = Path(name)
        folders = _exports(options.sources, work)
        images = write_demo_images(work, IMAGES)
        python = options.python or _environment(work / "environment", options.version)
        equal = [_compare(what, folder, images, python, work) for what, folder in folders.items()]
    return all(equal)


def _exports(sources: Sequence[str], work: Path) -> dict[str, Path]:
    """A folder for transformers of each source; one that is such a folder is taken as it is."""
    if not sources:
        return write_demo_models(work / "exports")
    folders = {}
    for number, source in enumerate(sources):
        path = Path(find_source(source, "outputs", "source")).expanduser()
        if not is_blip2_config(path):
            opened = open_pretrained(path)
            if opened.model.adapters is not None:
                merge_adapters(opened.model)
            path = write_huggingface(
                work / "exports" / str(number), opened.model, opened.processor, opened.manifest, opened.config
            )
        folders[source] = path
    return folders


def _environment(folder: Path, version: str) -> str:
    """Python of a fresh environment with that version of transformers, and with this project's torch."""
    packages = [f"transformers=={version}", f"torch=={torch.__version__.split('+')[0]}", "pillow"]
    echo(f"installing {' '.join(packages)} into {folder}", flush=True)
    venv.create(folder, with_pip=True)
    python = str(folder / ("Scripts" if sys.platform == "win32" else "bin") / "python")
    _run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages])
    return python


def _compare(what: str, folder: Path, images: Sequence[Path], python: str, work: Path) -> bool:
    """Whether both give the same for one folder; prints it."""
    small = _at_size(images, folder, work / "images")
    theirs, ours = (_read(program, folder, small, work) for program in (python, sys.executable))
    wrong = [key for result in (theirs, ours) for key in result["keys that do not fit"]]
    if "captions" in ours:
        texts = len(set(ours["captions"]))
        equal = theirs["captions"] == ours["captions"]
        verdict = f"{len(ours['captions'])} captions, {texts} different ones: {'the same' if equal else 'NOT the same'}"
    else:
        scores = [torch.tensor([result["scores"][name] for name in ("itc", "itm")]) for result in (theirs, ours)]
        apart, spread = (scores[0] - scores[1]).abs().max().item(), scores[1].flatten(1).std(dim=1).min().item()
        equal = apart <= TOLERANCE
        verdict = f"{scores[0].numel()} scores (spread {spread:.2g}): at most {apart:.1e} apart"
    versions = f"transformers {theirs['transformers']} ({theirs['tokenizer']}) and {ours['transformers']}"
    echo(f"{what}: {versions}: {verdict}{f'; weights that do not fit: {wrong[0]}, …' if wrong else ''}")
    if "captions" in ours:
        for number, pair in enumerate(zip(theirs["captions"], ours["captions"], strict=True)):
            if pair[0] != pair[1]:
                echo(f"  image {number % IMAGES}: {pair[0]!r} and {pair[1]!r}")
    same_tokens = sorted(theirs["special tokens"]) == sorted(ours["special tokens"])
    if not same_tokens:
        echo(f"  special tokens {theirs['special tokens']} and {ours['special tokens']}")
    return equal and same_tokens and not wrong


def _at_size(images: Sequence[Path], folder: Path, into: Path) -> Path:
    """The images at the size of the model, as two versions resize with other rounding."""
    size = json.loads((folder / "config.json").read_text("utf-8"))["vision_config"]["image_size"]
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir()
    for path in images:
        with Image.open(path) as image:
            image.resize((size, size), Image.Resampling.BICUBIC).save(into / path.name)
    return into


def _read(python: str, folder: Path, images: Path, work: Path) -> dict[str, Any]:
    output = work / "result.json"
    _run([python, str(Path(reading.__file__)), str(folder), str(images), str(output)])
    return dict(json.loads(output.read_text("utf-8")))


def _run(command: Sequence[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        printed = [line for line in done.stderr.splitlines() if line.strip()]
        raise ConfigError(f"{' '.join(command[:2])} … failed: {printed[-1] if printed else done.returncode}")
