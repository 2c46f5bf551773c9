"""Stage 2 under Lightning: the objective in training; loss, captions and CIDEr in validation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blip2_train.data.batches.answer_collate import AnswerCollator
from blip2_train.data.batches.generation_collate import DecoderOnlyCollator, EncoderDecoderCollator
from blip2_train.errors import CheckpointMismatch, ConfigError
from blip2_train.evaluation.generation import one_text
from blip2_train.evaluation.held_out_texts import GeneratedCaption, GenerationEvaluation
from blip2_train.evaluation.metrics.metric_states import CaptionScore
from blip2_train.models.configs import GenerationOptions
from blip2_train.models.generative import GenerativeModel
from blip2_train.objectives.generation import GenerationObjective
from blip2_train.optim.config import OptimizerConfig
from blip2_train.training.caption_log import CaptionLog, MarkWords
from blip2_train.training.module import TrainingModule
from blip2_train.types import GenerationBatch, TextTokens


class GenerationModule(TrainingModule):
    """Trains a `GenerativeModel` to generate the text of each image.

    Args:
        model: The stage-2 model.
        objective: Its loss.
        optimizer: Numbers of AdamW and its schedule.
        collator: Makes the batches; its tokenizer also writes prompts and reads what is generated.
        seed: Of dropout.
        prompt: What generation in validation starts from.
        generation: How captions are generated in validation.
        more_scores: Scores of single captions that validation reports beside CIDEr, by name.
        shown: Held-out images whose captions are shown.
        mark_words: Tells right words of a shown caption from wrong ones, see `CaptionLog`; None = nobody can.
        log_every: Optimiser steps between logged values.

    Raises:
        ConfigError: if the collator is of the other kind of language model, or the prompt is too long for the model.
        CheckpointMismatch: if the tokenizer has more tokens than the language model.
    """

    model: GenerativeModel
    objective: GenerationObjective
    stage = "stage2"

    def __init__(
        self,
        model: GenerativeModel,
        objective: GenerationObjective,
        optimizer: OptimizerConfig,
        collator: DecoderOnlyCollator | EncoderDecoderCollator | AnswerCollator,
        seed: int,
        prompt: str = "",
        generation: GenerationOptions | None = None,
        more_scores: dict[str, CaptionScore] | None = None,
        shown: int = 8,
        mark_words: MarkWords | None = None,
        log_every: int = 10,
    ) -> None:
        super().__init__(model, objective, optimizer, collator, seed, log_every)
        self.mark_words = mark_words
        self.collator, self.prompt, self.shown = collator, prompt, shown
        self.generation = one_text(generation or GenerationOptions(), "validation")
        self.more_scores = more_scores or {}
        self.tokenizer = collator.tokenizer.padding_on("left")
        self.captions: CaptionLog | None = None
        """Where the captions of a few images are written; None = nowhere."""
        self.shown_captions: list[GeneratedCaption] = []
        """Captions of the last validation, of this process's first images."""
        self._evaluation: GenerationEvaluation | None = None
        self._images: list[Tensor] = []
        self._check()

    def open_folder(self, folder: Path, mean: Sequence[float], std: Sequence[float]) -> None:
        """Write captions of held-out images into the run folder from now on."""
        self.captions = CaptionLog(folder, mean, std, self.mark_words)

    def on_validation_epoch_start(self) -> None:
        """Start a fresh collection."""
        self._evaluation, self._images, self.shown_captions = self.empty_evaluation(), [], []

    def empty_evaluation(self) -> GenerationEvaluation:
        """An empty collection of generated texts."""
        return GenerationEvaluation(self.more_scores)

    def validation_step(self, batch: GenerationBatch, batch_idx: int) -> None:
        """The loss on one held-out batch, and captions for its images."""
        assert self._evaluation is not None
        self._evaluation.add_loss(*self.objective.sums(self.model, batch), len(batch.target_positions))
        written = self.generate_held_out(batch, self._evaluation)
        missing = self.shown - len(self.shown_captions)
        if self.captions is not None and missing > 0:
            if not self.model.vision_model.reads_features:
                self._images.append(batch.pixel_values[:missing].cpu())
            self.shown_captions += [
                GeneratedCaption(image_id=image_id, caption=caption, references=others, question=question)
                for image_id, caption, others, question in zip(
                    batch.image_ids.tolist(), written, batch.references, self.questions_of(batch), strict=True
                )
            ][:missing]

    def generate_held_out(self, batch: Any, evaluation: GenerationEvaluation) -> Sequence[str]:
        """Describe the images of a held-out batch; the texts are shown beside them."""
        captions = self.generate_texts(batch.pixel_values, [self.prompt] * len(batch))
        evaluation.add_captions(batch.image_ids, captions, batch.references)
        return captions

    def questions_of(self, batch: Any) -> Sequence[str]:
        """What each shown text of a held-out batch begins with that the model has not generated."""
        return [""] * len(batch)

    def generate_texts(self, pixel_values: Tensor, prompts: list[str], question: TextTokens | None = None) -> list[str]:
        """Texts generated after the prompts of images `(B, 3, H, W)`."""
        ids, mask = self.tokenizer.padded([self.tokenizer.prompt_ids(prompt) for prompt in prompts])
        tokens = self.tokenizer.generation_tokens
        ids, mask = ids.to(self.device), mask.to(self.device)
        return self.tokenizer.decode(self.model.generate(pixel_values, ids, mask, self.generation, question, **tokens))

    def on_validation_epoch_end(self) -> None:
        """Score all held-out images, log the scores under `val/`, and show some captions."""
        assert self._evaluation is not None
        scores = self._evaluation.compute()
        self._evaluation = None
        self.log_validation(scores)
        if self.captions is not None and self.shown_captions:
            images = torch.cat(self._images) if self._images else None
            self.captions.write(self.global_step, images, self.shown_captions, self.loggers)

    def needed_tokens(self) -> dict[str, int]:
        """Tokens that a decoder-only model has to read beside the queries, by what needs them."""
        return {
            f"max_text_length {self.collator.max_text_length}": self.collator.max_text_length,
            "prompt and max_new_tokens": len(self.tokenizer.prompt_ids(self.prompt)) + self.generation.max_new_tokens,
        }

    def _check(self) -> None:
        if self.collator.tokenizer.encoder_decoder != self.model.is_encoder_decoder:
            kind = "encoder_decoder" if self.model.is_encoder_decoder else "decoder_only"
            raise ConfigError(
                f"collator does not fit language model {self.model.language_config.name}; pass collator={kind}"
            )
        vocabulary = self.model.vocab_size
        if len(self.tokenizer) > vocabulary:
            raise CheckpointMismatch(
                f"the tokenizer of {self.tokenizer.name} knows {len(self.tokenizer)} tokens, the language model "
                f"{vocabulary}: they do not belong together"
            )
        longest = getattr(self.model.language_model.config, "max_position_embeddings", None)
        if longest is None or self.model.is_encoder_decoder:
            return
        queries = self.model.qformer_config.num_queries
        for what, tokens in self.needed_tokens().items():
            if queries + tokens > longest:
                raise ConfigError(
                    f"{queries} queries and {what} make {queries + tokens} tokens, but language model "
                    f"{self.model.language_config.name} reads at most {longest}; lower it"
                )
