"""Keeps the checkpoint of a run's best validation, beside the newest checkpoint."""

from __future__ import annotations

from pathlib import Path

import lightning
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from blip2_train.checkpoints.training_checkpoints import BEST, describe_checkpoint
from blip2_train.distributed import gather_objects
from blip2_train.errors import ConfigError
from blip2_train.evaluation.run_metrics import smaller_is_better
from blip2_train.training.checkpoint_files import write_checkpoint
from blip2_train.training.module import TrainingModule


class BestCheckpoint(Checkpoint):
    """Writes `best_<step>.ckpt` after each validation that is better than all before it, and removes the one before.

    The best scores are on disk only, so that a run that was stopped between a validation and its next checkpoint has
    them too. (Lightning's `ModelCheckpoint` keeps it in checkpoints, of which the newest may be older than that
    validation.)

    Args:
        folder: Where checkpoints lie.
        monitor: Score that decides, as it is logged: `val/cider`. The largest is best; of a loss, the smallest.
    """

    def __init__(self, folder: Path, monitor: str) -> None:
        self.folder, self.monitor = folder, monitor
        self.path: Path | None = None
        """The best checkpoint; None before the first validation."""
        self.scores: dict[str, float] = {}
        """Scores of that validation, with its `step`."""

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Find the best checkpoint of a run that goes on."""
        paths = sorted(self.folder.glob(BEST)) if trainer.is_global_zero and trainer.ckpt_path else []
        known = [(one.path, one.scores) for one in map(describe_checkpoint, paths) if self._name in one.scores]
        for path, score in gather_objects(known)[0]:
            if self.beaten_by(score):
                self.path, self.scores = path, score

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Keep this validation's weights if it is the best.

        Raises:
            ConfigError: if validation gives no such score, naming those that it gives.
        """
        assert isinstance(pl_module, TrainingModule)
        scores = pl_module.validations[-1]
        if self._name not in scores:
            others = ", ".join(sorted(f"val/{name}" for name in scores if name != "step"))
            raise ConfigError(
                f"monitor={self.monitor}: validation has no such score, it has {others}; choose one of them, or "
                "monitor=null to export the newest weights"
            )
        if trainer.state.fn != TrainerFn.FITTING or not self.beaten_by(scores):
            return
        before, self.path = self.path, self.folder / f"best_{trainer.global_step:07d}.ckpt"
        self.scores = dict(scores)
        write_checkpoint(trainer, self.path)
        if before is not None and before != self.path and trainer.is_global_zero:
            before.unlink(missing_ok=True)

    def beaten_by(self, scores: dict[str, float]) -> bool:
        """Whether a validation with these scores is at least as good as the best so far: of equals, the later counts.

        At the beginning many are equal, as CIDEr is 0 until something is right, and the later model has seen more.
        """
        if self.path is None:
            return True
        new, best = scores[self._name], self.scores[self._name]
        return new <= best if smaller_is_better(self.monitor) else new >= best

    @property
    def _name(self) -> str:
        return self.monitor.removeprefix("val/")
