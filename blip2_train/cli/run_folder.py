"""Run folders: which checkpoint a run goes on from, and which export it starts from."""

from __future__ import annotations

from pathlib import Path

from blip2_train.errors import ConfigError
from blip2_train.evaluation.run_metrics import METRICS

CHECKPOINTS, EXPORT = "checkpoints", "export"
_LAST = "last:"
_SCRIPTS = {
    "demo_stage1": "pretrain_stage1.sh",
    "demo_stage2_opt_instruct": "pretrain_stage2.sh experiment=demo_stage2_opt_instruct",
}
"""Scripts that make the exports which demo recipes start from."""


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
    found = sorted((Path(output_dir) / recipe).glob(f"*/{EXPORT}/manifest.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        script = f" (bash run_scripts/{_SCRIPTS[recipe]})" if recipe in _SCRIPTS else ""
        raise ConfigError(
            f"{setting}={named}: no run under {Path(output_dir) / recipe} has an export; run experiment={recipe} "
            f"first{script}, or pass {setting}=<export folder>"
        )
    return str(found[-1].parent)


def find_source(named: str, output_dir: str, setting: str) -> str:
    """As `find_export`, but what is not `last:<recipe>` stays as it is: models also come from files or the hub."""
    return find_export(named, output_dir, setting) if named.startswith(_LAST) else named


def logged_run(source: str) -> Path | None:
    """The run folder that `source` is or whose export it is, if metrics were logged there."""
    path = Path(source).expanduser()
    return next((folder for folder in (path, path.parent) if path.exists() and (folder / METRICS).is_file()), None)


def run_folder_of(checkpoint: Path) -> Path:
    """The run folder that a checkpoint lies in, or its own folder if it was moved elsewhere."""
    return checkpoint.parent.parent if checkpoint.parent.name == CHECKPOINTS else checkpoint.parent
