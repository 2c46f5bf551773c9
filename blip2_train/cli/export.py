"""`python scripts/export.py <run folder or checkpoint> [folder]`: share the weights of a run, finished or not."""

from __future__ import annotations

import sys
from pathlib import Path

from blip2_train.cli.command_names import as_called
from blip2_train.cli.terminal import run_command
from blip2_train.errors import ConfigError
from blip2_train.system.screen import echo

USAGE = (
    "usage: python scripts/export.py <run folder, checkpoint or last:<recipe>> "
    "[folder to write, default <run folder>/export]"
)


def main(arguments: list[str]) -> None:
    """Write an export of the newest checkpoint of a run, or of the checkpoint given."""
    if not arguments or arguments[0] in ("-h", "--help"):
        echo(as_called(USAGE))
        return
    if arguments[0].startswith("--"):
        raise ConfigError(f"there is no option {arguments[0]}; {USAGE}")
    if len(arguments) > 2:
        raise ConfigError(f"too many arguments: {' '.join(arguments[2:])}; {USAGE}")
    if arguments[0] == "last":
        raise ConfigError(f"name the run folder, a checkpoint, or last:<recipe>; {USAGE}")
    from blip2_train.training.earlier_runs import (  # loads torch, which help does not need
        find_checkpoint,
        run_folder_of,
    )

    checkpoint = find_checkpoint(arguments[0], "outputs", "", setting="")
    folder = Path(arguments[1]) if len(arguments) == 2 else run_folder_of(checkpoint) / "export"
    echo(f"export: {export_checkpoint(checkpoint, folder)} (of {checkpoint.name})")


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


def command() -> None:
    """Entry of the console script."""
    sys.exit(run_command(main))
