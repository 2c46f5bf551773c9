"""The ways to run a stage-2 step that are compared: forward passes from a batch to the loss.

Shape letters: B batch, S tokens read, T tokens with a label, Q queries, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from plain import Mark
from torch import Tensor
from torch.nn import functional as F

from benchmark.huggingface import with_image_tokens
from benchmark.plans import Forward, marked
from blip2_train.data.batches.generation_collate import IGNORED
from blip2_train.models.generative import GenerativeModel
from blip2_train.objectives.generation import GenerationObjective
from blip2_train.types import GenerationBatch


class MarkedModel:
    """A model as the objective sees it, telling where its three parts end."""

    def __init__(self, model: GenerativeModel, mark: Mark) -> None:
        self._model, self._mark = model, mark

    def predicting_states(
        self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor, labels: Tensor
    ) -> Tensor:
        """The model's."""
        ends = {"vision": self._model.vision_model, "qformer": self._model.language_projection}
        with marked(self._mark, ends):
            states = self._model.predicting_states(pixel_values, input_ids, attention_mask, labels)
        self._mark("language_model")
        return states

    def output_layer(self) -> tuple[Tensor, Tensor | None]:
        """The model's."""
        return self._model.output_layer()


def labelled(model: GenerativeModel, objective: GenerationObjective) -> Forward:
    """This project's step."""

    def forward(batch: GenerationBatch, mark: Mark) -> Tensor:
        loss = objective(MarkedModel(model, mark), batch).total
        mark("head")
        return loss

    return forward


def all_positions(model: GenerativeModel) -> Forward:
    """This project's model, but logits of every position, those of the queries included, and one cross-entropy."""

    def forward(batch: GenerationBatch, mark: Mark) -> Tensor:
        encoder, labels = MarkedModel(model, mark), batch.labels
        if not model.is_encoder_decoder:
            labels = F.pad(labels, (model.qformer_config.num_queries - 1, 0), value=IGNORED)
        states = encoder.predicting_states(batch.pixel_values, batch.input_ids, batch.attention_mask, labels)
        weight, bias = encoder.output_layer()
        logits = F.linear(states.to(weight.dtype), weight, bias).float()
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        mark("head")
        return loss

    return forward


def theirs(model: GenerativeModel, twin: Any) -> Forward:
    """The forward pass of transformers with labels; `twin` is the model's from `share_weights`."""
    ends = {"vision": twin.vision_model, "qformer": twin.language_projection}
    begins = {"language_model": twin.get_output_embeddings()}

    def forward(batch: GenerationBatch, mark: Mark) -> Tensor:
        if twin.qformer.training != model.training:
            twin.qformer.train(model.training)
            twin.language_model.train(model.language_model.training)
        ids, mask = with_image_tokens(model, batch.input_ids, batch.attention_mask)
        labels = batch.labels
        if not model.is_encoder_decoder:
            nothing = labels.new_full((len(labels), model.qformer_config.num_queries), IGNORED)
            labels = torch.cat([nothing, labels], dim=1)
        with marked(mark, ends, begins):
            output = twin(pixel_values=batch.pixel_values, input_ids=ids, attention_mask=mask, labels=labels)
        mark("head")
        loss: Tensor = output.loss
        return loss

    return forward
