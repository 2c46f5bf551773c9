"""Run folders: which checkpoint a run goes on from, and which export it starts from."""

from __future__ import annotations

from pathlib import Path

from blip2_train.checkpoints.export import MANIFEST, exported_at
from blip2_train.checkpoints.training_checkpoints import ALL_NAMES, BEST, CHECKPOINTS, PERIODIC, newest_checkpoint
from blip2_train.errors import ConfigError
from blip2_train.evaluation.run_metrics import METRICS_FILE, RESULTS

EXPORT = "export"
_LAST = "last:"
_SCRIPTS = {
    "demo_stage1": "pretrain_stage1.sh",
    "demo_stage2_opt_instruct": "pretrain_stage2.sh experiment=demo_stage2_opt_instruct",
}
"""Scripts that make the exports which demo recipes start from."""


def find_checkpoint(resume_from: str, output_dir: str, experiment: str, setting: str = "resume_from=") -> Path:
    """The checkpoint that `resume_from` stands for.

    Args:
        resume_from: `last` (the newest run of the recipe that has a checkpoint), `last:<recipe>` (of another recipe), a
            run folder, or a checkpoint file.
        output_dir: Where the runs of all recipes lie.
        experiment: Name of the recipe.
        setting: What stands before the name in a message.

    Raises:
        ConfigError: if there is none.
    """
    if resume_from == "last" or resume_from.startswith(_LAST):
        runs = Path(output_dir).absolute() / (experiment if resume_from == "last" else resume_from.removeprefix(_LAST))
        checkpoint = newest_checkpoint(path for folder in runs.glob("*") for path in checkpoints_in(folder))
        if checkpoint is None:
            fix = f"start without {setting[:-1]}" if setting else "name a run folder or a checkpoint"
            raise ConfigError(f"{setting}{resume_from}: no run under {runs} has a checkpoint; {fix}")
        return checkpoint
    path = Path(resume_from).expanduser()
    if path.is_file():
        return path
    checkpoint = newest_checkpoint(checkpoints_in(path))
    if checkpoint is None:
        raise ConfigError(
            f"{setting}{resume_from}: neither a checkpoint nor a run folder with {CHECKPOINTS}/{PERIODIC}; use "
            "last:<recipe>, or the path that the run printed"
        )
    return checkpoint


def checkpoint_to_export(named: str, output_dir: str) -> Path:
    """The checkpoint whose weights a run exports, or would export now: of its best validation, else the newest.

    Args:
        named: A run folder, `last:<recipe>`, or a checkpoint file, which is taken as it is.
        output_dir: Where the runs of all recipes lie.

    Raises:
        ConfigError: if there is none.
    """
    newest = find_checkpoint(named, output_dir, "", setting="")
    if Path(named).expanduser().is_file():
        return newest
    return newest_checkpoint(newest.parent.glob(BEST)) or newest


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints that a run can go on from: those of every few steps; that of its best validation if none is."""
    checkpoints = folder / CHECKPOINTS
    return sorted(checkpoints.glob(PERIODIC)) or sorted(checkpoints.glob(BEST))


def results_in(folder: Path) -> list[str]:
    """What a run has left in its folder that a new one there would replace: `results.json`, `checkpoints`, `export`."""
    results = [RESULTS] if (folder / RESULTS).is_file() else []
    results += [CHECKPOINTS] if any((folder / CHECKPOINTS).glob(ALL_NAMES)) else []
    return [*results, *([EXPORT] if (folder / EXPORT / MANIFEST).is_file() else [])]


def find_export(named: str, output_dir: str, setting: str = "init_from") -> str:
    """The export folder that a setting names.

    Args:
        named: An export folder, a run folder that has one, or `last:<recipe>` for the newest export of a recipe.
        output_dir: Where the runs of all recipes lie.
        setting: What the setting is called.

    Raises:
        ConfigError: if `last:` finds none.
    """
    if not named.startswith(_LAST):
        inside = Path(named).expanduser() / EXPORT
        return str(inside if inside.is_dir() else Path(named).expanduser())
    recipe = named.removeprefix(_LAST)
    exports = sorted((Path(output_dir) / recipe).glob(f"*/{EXPORT}/{MANIFEST}"), key=exported_at)
    if not exports:
        script = f" (bash run_scripts/{_SCRIPTS[recipe]})" if recipe in _SCRIPTS else ""
        raise ConfigError(
            f"{setting}={named}: no run under {Path(output_dir).absolute() / recipe} has an export; run "
            f"experiment={recipe} first{script}, or pass {setting}=<export folder>"
        )
    return str(exports[-1].parent)


def find_source(named: str, output_dir: str, setting: str) -> str:
    """As `find_export`, but what is not `last:<recipe>` stays as it is: models also come from files or the hub."""
    return find_export(named, output_dir, setting) if named.startswith(_LAST) else named


def logged_run(source: str) -> Path | None:
    """The run folder that `source` is or whose export it is, if metrics were logged there."""
    path = Path(source).expanduser()
    return next((folder for folder in (path, path.parent) if path.exists() and (folder / METRICS_FILE).is_file()), None)


def run_folder_of(checkpoint: Path) -> Path:
    """The run folder that a checkpoint lies in, or its own folder if it was moved elsewhere."""
    return checkpoint.parent.parent if checkpoint.parent.name == CHECKPOINTS else checkpoint.parent
