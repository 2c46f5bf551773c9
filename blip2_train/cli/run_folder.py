"""Run folders: which one a run writes to, and which checkpoint it goes on from."""

from __future__ import annotations

from pathlib import Path

from blip2_train.errors import ConfigError

CHECKPOINTS = "checkpoints"


def find_checkpoint(resume_from: str, output_dir: str, experiment: str) -> Path:
    """The checkpoint that `resume_from` stands for.

    Args:
        resume_from: `last` (the newest run of the recipe that has a checkpoint), a run folder, or a checkpoint file.
        output_dir: Where the runs of all recipes lie.
        experiment: Name of the recipe.

    Raises:
        ConfigError: if there is none.
    """
    if resume_from == "last":
        runs = Path(output_dir) / experiment
        found = sorted(runs.glob(f"*/{CHECKPOINTS}/step_*.ckpt"), key=lambda path: (path.stat().st_mtime, path.name))
        if not found:
            raise ConfigError(f"resume_from=last: no run under {runs} has a checkpoint; start without resume_from")
        return found[-1]
    path = Path(resume_from).expanduser()
    if path.is_file():
        return path
    found = sorted((path / CHECKPOINTS).glob("step_*.ckpt"))
    if not found:
        raise ConfigError(
            f"resume_from={resume_from}: neither a checkpoint nor a run folder with {CHECKPOINTS}/step_*.ckpt; use "
            "last, or the path that the run printed"
        )
    return found[-1]


def run_folder_of(checkpoint: Path) -> Path:
    """The run folder that a checkpoint lies in, or its own folder if it was moved elsewhere."""
    return checkpoint.parent.parent if checkpoint.parent.name == CHECKPOINTS else checkpoint.parent
