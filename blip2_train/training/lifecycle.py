"""Small hooks into Lightning for commands, which do not import it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable

import lightning
import transformers
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from blip2_train.errors import ConfigError
from blip2_train.system.screen import plain_logs

__all__ = ["BeforeTraining", "Trainer", "check_trainer", "first_process_only", "quiet_libraries", "seed_everything"]

Trainer = lightning.Trainer
first_process_only = rank_zero_only
"""Decorator: the function does nothing, and returns None, on all processes but the first."""

_HARMLESS = (
    ".*Checkpoint directory.*exists and is not empty.*",  # a resumed run
    ".*resuming from a checkpoint that ended before the epoch ended.*",  # our loader goes on where it stopped
    ".*in eval mode at the start of training.*",  # the frozen tower, on purpose
    ".*smaller than the logging interval.*",  # training logs by itself
    ".*does not have many workers.*",
    ".*treespec.*",
    ".*returned a view tensor.*",  # a sharded block of OPT; nothing changes its output in place
)


def check_trainer(trainer: lightning.Trainer, clips: bool) -> None:
    """Refuse combinations that would train something else than what is configured.

    Args:
        trainer: As built from the configuration.
        clips: Whether gradients are clipped by norm.

    Raises:
        ConfigError: naming the setting.
    """
    if clips and trainer.precision == "16-mixed":
        raise ConfigError("optim.clip_norm does not work with trainer.precision=16-mixed; use bf16-mixed or 32-true")


class BeforeTraining(Callback):
    """Calls a function once data and checkpoint are accepted, before the first step."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act = act

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Call it."""
        self.act()


def seed_everything(seed: int) -> None:
    """Seed the generators that initial weights are sampled from."""
    lightning.seed_everything(seed, verbose=False)


def quiet_libraries() -> None:
    """Show the project's own notes, and silence those of Lightning that do not help a reader of its output."""
    logging.basicConfig(format="%(message)s")
    plain_logs(logging.getLogger().handlers)
    logging.getLogger("blip2_train").setLevel(logging.INFO)
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    for harmless in _HARMLESS:
        warnings.filterwarnings("ignore", harmless)
