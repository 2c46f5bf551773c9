"""Stage 1 under Lightning: the objective in training, held-out scores in validation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from blip2_train.data.batches.collate import ImageTextCollator
from blip2_train.errors import CheckpointMismatch, ConfigError
from blip2_train.evaluation.held_out_pairs import RepresentationEvaluation
from blip2_train.models.image_text import ImageTextModel
from blip2_train.objectives.representation import RepresentationObjective
from blip2_train.objectives.whole_batch import WholeBatch
from blip2_train.optim.config import OptimizerConfig
from blip2_train.training.module import TrainingModule
from blip2_train.training.retrieval_log import GALLERY, TEXTS, RetrievalLog
from blip2_train.types import ImageTextBatch, ObjectiveOutput


class RepresentationModule(TrainingModule):
    """Trains an `ImageTextModel` with ITC, ITM and ITG.

    Args:
        model: The stage-1 model.
        objective: The three losses, or a subclass with another contrastive loss.
        optimizer: Numbers of AdamW and its schedule.
        collator: Makes the batches.
        seed: Of dropout and hard negatives.
        log_every: Optimiser steps between logged values.

    Raises:
        CheckpointMismatch: if the tokenizer has another number of tokens than the model.
        ConfigError: if texts are longer than the model's positions.
    """

    model: ImageTextModel
    objective: RepresentationObjective
    stage = "stage1"

    def __init__(
        self,
        model: ImageTextModel,
        objective: RepresentationObjective,
        optimizer: OptimizerConfig,
        collator: ImageTextCollator,
        seed: int,
        log_every: int = 10,
    ) -> None:
        super().__init__(model, objective, optimizer, collator, seed, log_every)
        self.evaluation: RepresentationEvaluation | None = None
        self.tokenizer: Any = collator.tokenizer  # with transformers' `decode`
        self.retrieval: RetrievalLog | None = None
        """Where it is shown what a few texts find; None = nowhere."""
        self._whole: WholeBatch | None = None
        self._check(len(collator.tokenizer), collator.max_text_length)

    def open_folder(self, folder: Path, mean: Sequence[float], std: Sequence[float]) -> None:
        """Show in the run folder, from now on, what a few held-out texts find."""
        if not self.model.vision_model.reads_features:  # then there are no images
            self.retrieval = RetrievalLog(folder, mean, std, self._text_of)

    def compute_losses(self, batch: ImageTextBatch) -> ObjectiveOutput:
        """The losses of one micro-batch; the first of a step that is contrasted as a whole encodes all of them before.

        Raises:
            ConfigError: if the others of its step are not there.
        """
        parts = self.trainer.accumulate_grad_batches
        if parts == 1 or not self.contrasts_whole_steps:
            return super().compute_losses(batch)
        if self.micro_batch == 0 and not self.repeats:
            self._whole = None  # whose features need not be kept beside the next
            self._whole = self._first_pass((batch, *batch.following), parts)
        assert self._whole is not None
        return self.objective.second_pass(self.model, batch, self._whole, self.micro_batch, run_tower=self.repeats)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Let the features of a finished step go."""
        if self.micro_batch == self.trainer.accumulate_grad_batches - 1:
            self._whole = None

    def _first_pass(self, batches: Sequence[ImageTextBatch], parts: int) -> WholeBatch:
        if len(batches) != parts:
            raise ConfigError(
                f"objective.contrast=batch needs the {parts} micro-batches of a step together, but the first came with "
                f"{len(batches) - 1} others; set whole_steps of the data module, or pass objective.contrast=micro"
            )
        whole = self.objective.first_pass(
            self.model,
            batches,
            self.shared_generator(),
            self.seed_micro_batch,
            keep_features=self.model.vision_model.frozen,
            load=self._load,
        )
        self.seed_micro_batch(0)
        return whole

    def _load(self, batch: ImageTextBatch) -> ImageTextBatch:
        """A micro-batch on the device, as Lightning makes it of what the loader gives."""
        moved, data = batch.to(self.device), getattr(self.trainer, "datamodule", None)
        return moved if data is None else cast(ImageTextBatch, data.on_after_batch_transfer(moved, 0))

    def on_validation_epoch_start(self) -> None:
        """Start a fresh collection."""
        shown = (0, 0) if self.retrieval is None else (GALLERY, TEXTS)
        self.evaluation = RepresentationEvaluation(self.objective, self.seed, shown)

    def validation_step(self, batch: ImageTextBatch, batch_idx: int) -> None:
        """Encode one held-out batch."""
        assert self.evaluation is not None
        self.evaluation.add(self.model, batch)
        if self.retrieval is not None:
            self.retrieval.add(batch.pixel_values)

    def on_validation_epoch_end(self) -> None:
        """Score all held-out pairs and log them under `val/`."""
        assert self.evaluation is not None
        with self.trainer.precision_plugin.val_step_context():
            scores = self.evaluation.compute(self.model, self.device)
        similarity, self.evaluation = self.evaluation.similarity, None
        self.log_validation(scores)
        if self.retrieval is not None and similarity is not None:
            self.retrieval.write(self.global_step, similarity)

    def _text_of(self, ids: Tensor) -> str:
        return str(self.tokenizer.decode(ids.tolist(), skip_special_tokens=True))

    def _check(self, tokens: int, max_text_length: int) -> None:
        sizes = self.model.qformer_config
        if tokens != sizes.vocab_size:
            raise CheckpointMismatch(
                f"the tokenizer has {tokens} tokens with [DEC], the Q-Former has vocab_size {sizes.vocab_size}: "
                "tokenizer and model.qformer do not belong together"
            )
        if max_text_length > sizes.max_positions:
            raise ConfigError(
                f"max_text_length is {max_text_length} tokens, but model.qformer.max_positions is "
                f"{sizes.max_positions}; lower the first or raise the second"
            )
