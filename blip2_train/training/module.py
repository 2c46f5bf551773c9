"""What every training module shares: optimiser, schedule per step, seeds per step, and checkpoints of what trains."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from blip2_train.checkpoints.files import fingerprint
from blip2_train.data.order import stable_seed
from blip2_train.distributed import gather_objects, mean_over_processes, rank
from blip2_train.errors import CheckpointMismatch, ConfigError
from blip2_train.models.freezing import frozen_weights, kept_names
from blip2_train.optim.config import OptimizerConfig
from blip2_train.optim.param_groups import (
    ParameterGroup,
    build_adamw,
    optimizer_difference,
    parameter_groups,
    set_learning_rate,
)
from blip2_train.optim.schedule import learning_rate
from blip2_train.training.checkpoint_notes import written_by
from blip2_train.training.sharding import ShardedStrategy, clip_by_norm, gather_whole, shard_model
from blip2_train.training.timeout import DataParallelStrategy
from blip2_train.types import AnswerBatch, Batch, Collator, GenerationBatch, ImageTextBatch, Objective, ObjectiveOutput

_LOGGER = logging.getLogger(__name__)
_COLLATORS: dict[type[Batch], str] = {
    ImageTextBatch: "image_text",
    GenerationBatch: "decoder_only or collator=encoder_decoder",
    AnswerBatch: "answer",
}
"""Options of `collator` that make a kind of batch."""


def _own_parameters(objective: Any) -> Iterable[tuple[str, nn.Parameter]]:
    """Parameters of an objective that has some, by their names in the training module."""
    return objective.named_parameters(prefix="objective") if isinstance(objective, nn.Module) else ()


def _check_batches(objective: Objective, collator: Collator) -> None:
    reads, makes = getattr(objective, "batch_type", None), getattr(collator, "batch_type", None)
    if reads is not None and makes is not None and not issubclass(makes, reads):  # those of one's own may not say it
        fix = _COLLATORS.get(reads)
        raise ConfigError(
            f"{type(objective).__name__} reads batches of kind {reads.__name__}, but the collator makes "
            f"{makes.__name__}; pass " + (f"collator={fix}" if fix else "a collator that makes them")
        )


class TrainingModule(lightning.LightningModule):
    """A model under training.

    Randomness is a function of (seed, optimiser step, micro-batch, process), so a resumed run repeats an uninterrupted
    one without any generator state; the learning rate is a function of the step. Checkpoints therefore hold the
    trainable weights, the optimiser, the seed, and a fingerprint of the frozen weights.

    Args:
        model: What trains; frozen parts keep themselves in eval mode.
        objective: Its loss. Parameters of its own train too, and lie in checkpoints, but not in exports.
        optimizer: Numbers of AdamW and its schedule.
        collator: Makes the batches that the objective reads.
        seed: Of dropout and of whatever the objective samples.
        log_every: Optimiser steps between logged values.

    Raises:
        ConfigError: if the collator makes other batches than the objective reads.
    """

    stage: str
    """Name of the stage, for exports."""
    prompt: str = ""
    """What captions start from."""

    def __init__(
        self,
        model: Any,
        objective: Any,
        optimizer: OptimizerConfig,
        collator: Collator,
        seed: int,
        log_every: int = 10,
    ) -> None:
        super().__init__()
        self.model, self.objective = model, objective
        _check_batches(objective, collator)
        self.optimizer_config = optimizer
        self.seed, self.log_every = seed, log_every
        self.run_config = ""
        """Resolved configuration as YAML text, for checkpoints."""
        self.parent: str | None = None
        """SHA-256 of the weights that the run started from, for checkpoints."""
        self.about: dict[str, Any] = {}
        """Describes the model and its inputs, for checkpoints and exports: `stage`, `architecture`, `processor`."""
        self.latest: dict[str, float] = {}
        """Values that were logged last, by name, and the optimiser step (from 1) that they are of."""
        self.latest_step = 0
        self.validations: list[dict[str, float]] = []
        """Scores of each validation, with its `step`."""
        self.saves = 0
        """Number of checkpoints that the run has written; the newest has the largest, whatever its name."""
        self.repeats = False
        """Whether a micro-batch runs again, to be examined: nothing is logged then."""
        self.consumed: Callable[[int], dict[str, float]] = lambda step: {}
        """What of the data was trained on after so many steps, to be logged with the losses."""
        self.micro_batch = 0
        """Number of the micro-batch within its step."""
        self._sums: torch.Tensor | None = None
        self._frozen_fingerprint: str | None = None

    @property
    def strict_loading(self) -> bool:
        """Frozen weights are not in checkpoints; `on_load_checkpoint` checks the keys instead."""
        return False

    @strict_loading.setter
    def strict_loading(self, value: bool) -> None:
        raise AttributeError("checkpoints never hold frozen weights; keys are checked by on_load_checkpoint")

    def groups(self) -> list[ParameterGroup]:
        """The parameter groups of the optimiser."""
        tower = getattr(self.model, "vision_model", None)
        num_blocks, family = getattr(tower, "num_blocks", 0), getattr(tower, "family", None)
        if family is not None and self.optimizer_config.layer_decay != 1.0:
            raise ConfigError(f"a vision tower of {family} has no layer-wise learning rates: set optim.layer_decay=1")
        named = [*self.model.named_parameters(), *_own_parameters(self.objective)]
        return parameter_groups(named, num_blocks, self.optimizer_config)

    def configure_model(self) -> None:
        """Shard the model over the processes if the trainer's strategy does; called before training and validating."""
        strategy = self.trainer.strategy
        if isinstance(strategy, ShardedStrategy) and not isinstance(self, FSDPModule):
            shard_model(self, self.model, strategy.device_mesh["data_parallel"], self.frozen_fingerprint())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW; the schedule is applied step by step below."""
        return build_adamw(self.groups(), self.optimizer_config)

    def on_train_start(self) -> None:
        """Refuse a validation in which processes of a sharded model would wait for each other for ever.

        Raises:
            ConfigError: naming the numbers of batches.
        """
        counts = gather_objects(sum(self.trainer.num_val_batches)) if isinstance(self, FSDPModule) else []
        if len(set(counts)) > 1:
            raise ConfigError(
                f"the processes have {', '.join(map(str, counts))} validation batches, but must have equally many to "
                "run a sharded model together; change data.eval_batch_size"
            )

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """The loss of one micro-batch."""
        output = self.compute_losses(batch)
        losses = {f"loss_{name}": value for name, value in output.terms.items()}
        self.log_training({"loss": output.total, **losses, **output.stats})
        return output.total

    def compute_losses(self, batch: Any) -> ObjectiveOutput:
        """The losses of one micro-batch, the `micro_batch`-th of its step."""
        output: ObjectiveOutput = self.objective(self.model, batch, self.shared_generator())
        return output

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed this micro-batch, and set the learning rate of this step."""
        self.seed_micro_batch(batch_idx % self.trainer.accumulate_grad_batches)
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        set_learning_rate(optimizer, learning_rate(self.global_step, self.optimizer_config))

    def seed_micro_batch(self, index: int) -> None:
        """Make what follows micro-batch `index` of this step: the same random numbers each time."""
        self.micro_batch = index
        torch.manual_seed(stable_seed(self.seed, "dropout", self.global_step, index, rank()))

    def shared_generator(self) -> torch.Generator:
        """A CPU generator in the same state on every process, new for each micro-batch."""
        return torch.Generator().manual_seed(stable_seed(self.seed, "shared", self.global_step, self.micro_batch))

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        """Let the gradients go; in data parallelism set them to zero, so that they stay in its buffers."""
        optimizer.zero_grad(set_to_none=not isinstance(self.trainer.strategy, DataParallelStrategy))

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Clip by norm if the recipe does."""
        if self.optimizer_config.clip_norm is not None:
            clip_by_norm(self.parameters(), self.optimizer_config.clip_norm)

    def log_training(self, values: dict[str, torch.Tensor]) -> None:
        """Log scalars under `train/`, every `log_every` steps and at the last: means over micro-batches and processes.

        This and the check for finite numbers are the places of a step that wait for the device.
        """
        step, accumulate = self.global_step + 1, self.trainer.accumulate_grad_batches
        if self.repeats:
            return
        if step != 1 and step % self.log_every and step != self.optimizer_config.steps:
            return
        stacked = torch.stack([v.detach().float() for v in values.values()])
        self._sums = stacked if self.micro_batch == 0 or self._sums is None else self._sums + stacked
        if self.micro_batch < accumulate - 1:
            return
        mean = (mean_over_processes(self._sums) / accumulate).tolist()
        self.latest, self.latest_step = dict(zip(values, mean, strict=True)), step
        record = {f"train/{name}": value for name, value in self.latest.items()}
        record["train/lr"] = learning_rate(self.global_step, self.optimizer_config)
        record |= self.consumed(step)
        for logger in self.loggers:
            logger.log_metrics(record, step=step)

    def chance_levels(self, contrasted: int) -> dict[str, float]:
        """Loss of a model that has learned nothing, by the name under which the loss is logged.

        Args:
            contrasted: Samples that are contrasted with each other.
        """
        levels = self.objective.chance_levels(contrasted, self.model.vocab_size)
        return {f"loss_{name}": value for name, value in levels.items()}

    @property
    def contrasts_within_batch(self) -> bool:
        """Whether samples of a micro-batch are each other's negatives."""
        return bool(getattr(self.objective, "contrasts_within_batch", False))

    @property
    def contrasts_whole_steps(self) -> bool:
        """Whether those of a whole step are: its micro-batches must be there before the first of them is trained on."""
        return getattr(self.objective, "contrast", "micro") == "batch"

    def contrasted(self, global_batch_size: int, accumulate: int) -> int:
        """Samples that are contrasted with each other.

        Args:
            global_batch_size: Samples per optimiser step, over all processes.
            accumulate: Micro-batches per optimiser step.
        """
        return global_batch_size if self.contrasts_whole_steps else global_batch_size // accumulate

    def open_folder(self, folder: Path, mean: Sequence[float], std: Sequence[float]) -> None:
        """Called once the run folder is open, before the first step, in the first process.

        Args:
            folder: The run folder.
            mean: Of pixel values, per channel.
            std: Likewise.
        """

    def log_validation(self, scores: dict[str, float]) -> None:
        """Keep the scores of a validation, and log them under `val/`."""
        self.validations.append({"step": float(self.global_step), **scores})
        for logger in self.loggers:
            logger.log_metrics({f"val/{name}": value for name, value in scores.items()}, step=self.global_step)

    def trained_weights(self) -> dict[str, torch.Tensor]:
        """What checkpoints hold of the model, on the CPU, by name, in the first process; nothing in the others.

        Every process must call it: they may be sharded.
        """
        keep = kept_names(self.model)
        return gather_whole({name: tensor for name, tensor in self.model.state_dict().items() if name in keep})

    def frozen_fingerprint(self) -> str:
        """SHA-256 of the frozen weights that checkpoints lack, taken before they are sharded; empty if all train."""
        if self._frozen_fingerprint is None:
            self._frozen_fingerprint = fingerprint(frozen_weights(self.model))
        return self._frozen_fingerprint

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the trainable weights only, with notes on what they belong to."""
        keep = kept_names(self)
        checkpoint["state_dict"] = {key: value for key, value in checkpoint["state_dict"].items() if key in keep}
        self.saves += 1
        checkpoint["blip2_train"] = {
            "saves": self.saves,
            "saved_at": time.time(),
            "seed": self.seed,
            "accumulate": self.trainer.accumulate_grad_batches,
            "steps": self.optimizer_config.steps,
            "frozen_fingerprint": self.frozen_fingerprint(),
            "config": self.run_config,
            "parent": self.parent,
            "about": self.about,
            "scores": self._scores_now(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another model, another frozen tower, another seed, or another optimiser.

        Raises:
            CheckpointMismatch: with the reason.
        """
        about = written_by(checkpoint)
        if about.seed != self.seed:
            raise CheckpointMismatch(
                f"the checkpoint was written with seed={about.seed}, this run has seed={self.seed}: the data order "
                f"would change; pass seed={about.seed}"
            )
        self._check_steps(about.steps, checkpoint["global_step"])
        self.saves = max(self.saves, about.saves)
        keep, stored = kept_names(self), set(checkpoint["state_dict"])
        if keep != stored:
            difference = sorted(keep ^ stored)
            raise CheckpointMismatch(
                f"the checkpoint and the model differ in {len(difference)} trainable tensors (first: {difference[0]}); "
                "resume with the recipe that wrote it"
            )
        for name, parameter in self.named_parameters():
            if name in stored and parameter.shape != checkpoint["state_dict"][name].shape:
                raise CheckpointMismatch(
                    f"{name} has shape {tuple(checkpoint['state_dict'][name].shape)} in the checkpoint and "
                    f"{tuple(parameter.shape)} in the model; resume with the recipe that wrote it"
                )
        if about.frozen_fingerprint != self.frozen_fingerprint():
            raise CheckpointMismatch(
                "the frozen weights are not those of the checkpoint (their SHA-256 differs); point the recipe's vision "
                "weights to the file that the run started with"
            )
        optimizer = build_adamw(self.groups(), self.optimizer_config)
        for saved in checkpoint["optimizer_states"]:
            if otherwise := optimizer_difference(optimizer.param_groups, saved["param_groups"]):
                raise CheckpointMismatch(
                    f"the checkpoint is of another training: {otherwise}; resume with the recipe that wrote it"
                )
        self._restate_position(checkpoint, about.accumulate)

    def _check_steps(self, before: int, done: int) -> None:
        """Refuse another number of steps, unless a finished run is extended; then log what becomes of the schedule.

        Args:
            before: Steps of the run that wrote the checkpoint.
            done: Steps that are done.
        """
        now = self.optimizer_config.steps
        if before == now:
            return
        if done < before or now < before:
            raise CheckpointMismatch(
                f"the checkpoint belongs to a run of steps={before}, this one {now}: the learning rate would jump; "
                f"pass steps={before} (a run that has finished them goes on with more), or begin anew with "
                "init_from=<export>"
            )
        config = self.optimizer_config
        earlier = replace(config, steps=before, warmup_steps=min(config.warmup_steps, before))
        _LOGGER.info(
            "the run of %d steps is finished and extended to %d: its learning rate ended at %.3g and goes on at %.3g, "
            "as the schedule over %d steps has it here; optim.lr and optim.min_lr change that",
            *(before, now, learning_rate(done, earlier), learning_rate(done, config), now),
        )

    def _scores_now(self) -> dict[str, float]:
        """Scores of the validation of this step; none if there was none."""
        latest = self.validations[-1] if self.validations else {}
        return latest if latest.get("step") == self.global_step else {}

    def _restate_position(self, checkpoint: dict[str, Any], accumulate: int) -> None:
        """Lightning counts micro-batches; state the same position in micro-batches of this run's accumulation."""
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for counts in (progress["total"], progress["current"]):
            for key, count in counts.items():
                counts[key] = count * self.trainer.accumulate_grad_batches // accumulate
