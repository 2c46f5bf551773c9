"""Uploads an export to the Hugging Face hub, with its model card and an example image."""

from __future__ import annotations

import argparse
from pathlib import Path

from safetensors import safe_open

from blip2_train.checkpoints.export import WEIGHTS, read_manifest
from blip2_train.checkpoints.hub import is_on_this_machine, looks_like_hub_id
from blip2_train.cli.model_card import evaluation_scores, held_out_scores, model_card
from blip2_train.cli.part_sizes import size_text
from blip2_train.data.batches.images import decode_image
from blip2_train.data.emoji_scenes.parts import scene_jpeg
from blip2_train.data.emoji_scenes.split_scenes import drawn_scenes
from blip2_train.data.rejections import UnusableSample
from blip2_train.errors import ConfigError
from blip2_train.hub import upload_files
from blip2_train.system.screen import echo

CARD = "README.md"


def publish(folder: Path, options: argparse.Namespace) -> None:
    """Upload the export in a folder, or show what would be uploaded.

    Raises:
        ConfigError: if an option cannot be used, or as `upload_files`.
        CheckpointMismatch: if the folder holds no whole export.
    """
    repository = options.push
    if not looks_like_hub_id(repository):
        raise ConfigError(f"--push {repository} is no name of a repository; write <user>/<model>")
    files = files_to_upload(folder, repository, options.results or (), options.license, options.example)
    for part, path in _parts_of_this_machine(folder).items():
        echo(
            f"warning: others cannot load this: its {part} is read from {path}, a path of this machine; publish that, "
            "too, and train from its hub id"
        )
    if options.dry_run:
        echo(f"would upload to {repository}{', made if it is not there' if options.create else ''}:")
        for name, content in files.items():
            size = len(content) if isinstance(content, bytes) else content.stat().st_size
            echo(f"  {size_text(size):>9}  {name}")
        card = files[CARD]
        echo(f"\n{CARD}:\n\n{card.decode() if isinstance(card, bytes) else card.read_text('utf-8', 'replace')}", end="")
        return
    address = upload_files(repository, files, create=options.create, private=options.private)
    echo(f"uploaded: {address}")


def files_to_upload(
    folder: Path, repository: str, results: list[str] | tuple[str, ...], licence: str | None, example: str | None
) -> dict[str, Path | bytes]:
    """Path or content of each file by its name in the repository; a model card in the folder stays as it is.

    Raises:
        ConfigError: if results are not of this export, or the example is no image.
        CheckpointMismatch: if the folder holds no whole export.
    """
    manifest = read_manifest(folder)
    listed = sorted(path for path in folder.rglob("*") if path.is_file())
    files: dict[str, Path | bytes] = {str(path.relative_to(folder)): path for path in listed}
    files = {name: path for name, path in files.items() if not any(part.startswith(".") for part in Path(name).parts)}
    scores = held_out_scores(manifest)
    scores += [score for name in results for score in evaluation_scores(Path(name).expanduser(), folder)]
    image = _demo_image() if example is None else _image(Path(example).expanduser())
    ending = ".jpg" if example is None else Path(example).suffix.lower()
    files.setdefault(f"example{ending}", image)
    files.setdefault(CARD, model_card(manifest, repository, f"example{ending}", scores, licence).encode())
    return files


def _parts_of_this_machine(folder: Path) -> dict[str, str]:
    """Paths of frozen parts that an export does not hold, by what they are."""
    described = read_manifest(folder).architecture
    with safe_open(folder / WEIGHTS, framework="pt") as weights:
        names = list(weights.keys())
    parts = {
        "language model": ("language_model", (described.get("language") or {}).get("name", "")),
        "vision tower": ("vision_model", (described.get("vision") or {}).get("weights", "")),
    }
    return {
        part: path
        for part, (prefix, path) in parts.items()
        if is_on_this_machine(path or "") and not any(name.startswith(f"{prefix}.") for name in names)
    }


def _demo_image() -> bytes:
    """An image of the demo's held-out ones."""
    return scene_jpeg(next(drawn_scenes("val", 1, seed=0)).scene)


def _image(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        decode_image(content)
    except (OSError, UnusableSample) as error:
        raise ConfigError(f"--example {path} is no image that can be read ({error}); give another one") from None
    return content
