"""`python scripts/export.py <run folder or checkpoint> [folder]`: share the weights of a run, finished or not."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from blip2_train.cli.command_parser import CommandParser
from blip2_train.cli.terminal import run_command
from blip2_train.errors import ConfigError
from blip2_train.system.screen import echo

ABOUT = """\
Write the trained weights of a run as an export: of its best checkpoint if it keeps one (monitor), else of its
newest, or of the checkpoint given. --push uploads it to the Hugging Face hub, too, with a model card; an export
that is there is uploaded as it is."""
EXAMPLES = """\
examples:
  python scripts/export.py outputs/demo_stage1/<run>
  python scripts/export.py last:demo_stage1 exports/mine
  python scripts/export.py outputs/demo_stage1/<run> --push <user>/<model> --dry-run
  python scripts/export.py outputs/demo_stage1/<run> --push <user>/<model> --create --license mit \\
                           --results outputs/evaluate/<time>/results.json"""


def main(arguments: list[str]) -> None:
    """Write the export, and upload it if that is asked for."""
    options = parser().parse_args(arguments)
    if options.run == "last":
        raise ConfigError("name the run folder, a checkpoint, or last:<recipe>; see export.py --help")
    if options.push is None:
        without = ("create", "private", "dry_run", "results", "license", "example")
        if given := next((name for name in without if getattr(options, name)), None):
            raise ConfigError(f"--{given.replace('_', '-')} goes with --push <user>/<model>; add it, or leave this out")
    if options.private and not options.create:
        raise ConfigError("--private makes a new repository private; add --create, or change an old one on the hub")
    if options.push is None:
        _write(options)
        return
    from blip2_train.cli.publish import publish

    with tempfile.TemporaryDirectory(prefix="blip2_export_") as scratch:
        into = Path(scratch) / "export" if options.dry_run else None
        publish(_export_that_is_there(options) or _write(options, into), options)


def _export_that_is_there(options: argparse.Namespace) -> Path | None:
    """The export that is given, or that the run has; None if it must be written.

    Raises:
        ConfigError: if the folder is one for transformers.
    """
    from blip2_train.checkpoints.export import MANIFEST, read_manifest  # loads torch, which help does not need
    from blip2_train.training.earlier_runs import EXPORT, checkpoint_to_export, run_folder_of

    given = Path(options.run).expanduser()
    if options.folder is not None or given.is_file():
        return None
    if (given / MANIFEST).is_file():
        return given
    if (given / "config.json").is_file():
        raise ConfigError(
            f"{given} is a folder for transformers, which has its card: hf upload {options.push} {given} uploads it"
        )
    run = given if given.is_dir() else run_folder_of(checkpoint_to_export(options.run, "outputs"))
    own = run / EXPORT
    if not (own / MANIFEST).is_file():
        return None
    echo(f"export: {own} (of step {read_manifest(own).step:,})")
    return own


def _write(options: argparse.Namespace, into: Path | None = None) -> Path:
    """Write the export, of a dry run `into` another folder than it would have; returns where it was written."""
    from blip2_train.training.earlier_runs import EXPORT, checkpoint_to_export, run_folder_of

    checkpoint = checkpoint_to_export(options.run, "outputs")
    folder = run_folder_of(checkpoint) / EXPORT if options.folder is None else Path(options.folder)
    written = export_checkpoint(checkpoint, into or folder)
    echo(f"export: {'would be ' if into else ''}{folder} (of {checkpoint.name})")
    return written


def export_checkpoint(checkpoint: Path, folder: Path) -> Path:
    """Write the trained weights of a checkpoint as an export.

    Raises:
        CheckpointMismatch: if the checkpoint cannot be read or was not written by this project, or as
            `checkpoint_parts`.
    """
    from blip2_train.checkpoints.export import write_export
    from blip2_train.checkpoints.training_checkpoints import read_training_state
    from blip2_train.config.checkpoint_parts import checkpoint_parts

    parts = checkpoint_parts(read_training_state(checkpoint), checkpoint)
    return write_export(folder, parts.weights, parts.config, parts.tokenizer, parts.manifest)


def parser() -> argparse.ArgumentParser:
    """The command's parser; a mistake raises `ConfigError`."""
    made = CommandParser(prog="export.py", description=ABOUT, epilog=EXAMPLES)
    made.add_argument("run", help="run folder, checkpoint, last:<recipe>, or with --push an export folder")
    made.add_argument("folder", nargs="?", help="folder to write (default <run folder>/export)")
    group = made.add_argument_group("the Hugging Face hub")
    group.add_argument("--push", metavar="NAME", help="upload to this model repository, <user>/<model>")
    group.add_argument("--create", action="store_true", help="make the repository if it is not there")
    group.add_argument("--private", action="store_true", help="make it a private one")
    group.add_argument("--dry-run", action="store_true", help="show what would be uploaded, without network")
    group.add_argument(
        "--results", action="append", metavar="FILE", help="results.json of an evaluation of it, for the model card"
    )
    group.add_argument(
        "--license", metavar="NAME", help="licence of the weights, for the model card: mit, apache-2.0, …"
    )
    group.add_argument("--example", metavar="IMAGE", help="image to try it on (default: one that ships with the demo)")
    return made


def command() -> None:
    """Entry of the console script."""
    sys.exit(run_command(main))
