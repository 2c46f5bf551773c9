"""The single run of the training command: composed, then trained from the start or from a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig

from blip2_train.cli.terminal import config_from, kept_when_stopped
from blip2_train.config.overrides import quoted
from blip2_train.errors import RunStopped

ABOUT = "Train as a recipe says."
USAGE = "python scripts/train.py"


def train_single(arguments: list[str]) -> None:
    """Compose, and train or go on training.

    A run that goes on is composed twice, as the folder of its checkpoint is known only after the first time. The
    `config.yaml` there is not read: the command line counts, and what does not fit the checkpoint is refused.

    Args:
        arguments: Of the command line, without `--multirun`.
    """
    config = config_from(arguments, ABOUT, USAGE)
    if config is None:
        return
    from blip2_train.config.run_folder import new_run_folder  # these load torch: not for a list of recipes
    from blip2_train.training.earlier_runs import find_checkpoint, run_folder_of

    if config.resume_from is None:
        with new_run_folder(config, arguments) as own:
            _train(own, None)
        return
    checkpoint = find_checkpoint(config.resume_from, config.paths.output_dir, config.experiment)
    kept_when_stopped(f"{checkpoint} is as it was")
    with _logged_before():
        config = config_from([*arguments, quoted("paths.run_dir", run_folder_of(checkpoint))], ABOUT, USAGE)
    assert config is not None
    _train(config, checkpoint)


@contextmanager
def _logged_before() -> Iterator[None]:
    """What composing logs of derived values is not logged a second time."""
    logger = logging.getLogger("blip2_train.config")
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(logging.NOTSET)


def _train(config: DictConfig, checkpoint: Path | None) -> None:
    from blip2_train.cli.train.run import train  # loads Lightning
    from blip2_train.distributed import leave_group
    from blip2_train.training.timeout import timeout_in_one_line

    stopped = None
    with timeout_in_one_line(Path(config.paths.run_dir)):
        try:
            train(config, checkpoint)
        except RunStopped as stop:
            stopped = stop.with_traceback(None)  # whose frames hold the trainer
    leave_group()
    if stopped is not None:
        raise stopped
