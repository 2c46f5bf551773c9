"""`python scripts/export.py <run folder or checkpoint> [folder]`: share the weights of a run, finished or not."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from blip2_train.cli.command_parser import CommandParser
from blip2_train.cli.terminal import run_command
from blip2_train.errors import ConfigError
from blip2_train.system.screen import echo

ABOUT = """\
Write the trained weights of a run as an export: of its newest checkpoint, or of the checkpoint given. --push
uploads it to the Hugging Face hub, too, with a model card; an export folder is uploaded as it is."""
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
    folder = _export(options)
    if options.push is not None:
        from blip2_train.cli.publish import publish

        publish(folder, options)


def _export(options: argparse.Namespace) -> Path:
    """The export that was written, or the folder of one that is there."""
    from blip2_train.checkpoints.export import MANIFEST  # loads torch, which help does not need
    from blip2_train.training.earlier_runs import find_checkpoint, run_folder_of

    given = Path(options.run).expanduser()
    if options.push is not None and options.folder is None and (given / MANIFEST).is_file():
        return given
    checkpoint = find_checkpoint(options.run, "outputs", "", setting="")
    folder = run_folder_of(checkpoint) / "export" if options.folder is None else Path(options.folder)
    echo(f"export: {export_checkpoint(checkpoint, folder)} (of {checkpoint.name})")
    return folder


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
