"""The run folder: locked while a run writes to it, and never another run's results in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from blip2_train.checkpoints.export import MANIFEST
from blip2_train.checkpoints.training_checkpoints import ALL_NAMES, CHECKPOINTS
from blip2_train.errors import ConfigError
from blip2_train.evaluation.figures.curves import CURVES
from blip2_train.evaluation.run_metrics import RESULTS
from blip2_train.system.folder_lock import lock_folder
from blip2_train.system.launcher import launched_as_first_process
from blip2_train.system.line_log import LINES
from blip2_train.training.caption_log import GRID
from blip2_train.training.caption_log import LINES as CAPTIONS
from blip2_train.training.earlier_runs import EXPORT, results_in
from blip2_train.training.retrieval_log import RETRIEVAL

_CHOICES = "go on with that run by resume_from={}, give another paths.run_dir=, or replace it by overwrite=true"


@contextmanager
def hold_run_folder(folder: Path, resumes: bool, overwrite: bool) -> Iterator[None]:
    """Keep other runs out of the run folder; every process may call it, the first one holds the lock.

    Args:
        folder: The run folder.
        resumes: Whether the run resumes from a checkpoint.
        overwrite: Whether results of another run may be replaced.

    Raises:
        ConfigError: if another run writes there now, or has left results there that are not to be replaced.
    """
    if not launched_as_first_process():
        yield
        return
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    choices = "wait for that run or end it, or give another paths.run_dir="
    try:
        with lock_folder(folder, f"run folder {folder}", choices):
            results = [] if resumes or overwrite else results_in(folder)
            if results:
                what = f"run folder {folder} holds the {', '.join(results)} of another run"
                raise ConfigError(f"{what}: {_CHOICES.format(folder)}")
            yield
    finally:
        if new:
            with suppress(OSError):
                folder.rmdir()


def remove_results(folder: Path) -> None:
    """Remove the results of another run, so that none of them is taken for the new run's.

    Only files that runs write are removed, nothing else in the folder.
    """
    (folder / RESULTS).unlink(missing_ok=True)  # first: without it nothing counts as finished
    for name in (LINES, CURVES, RETRIEVAL, GRID, CAPTIONS):
        (folder / name).unlink(missing_ok=True)
    for checkpoint in (folder / CHECKPOINTS).glob(ALL_NAMES):
        checkpoint.unlink()
    if (folder / EXPORT / MANIFEST).is_file():
        shutil.rmtree(folder / EXPORT)
