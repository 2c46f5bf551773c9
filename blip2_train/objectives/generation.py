"""Stage 2 of BLIP-2: the frozen language model generates the text that belongs to the image.

Shape letters: B batch per process, T text tokens, K tokens with a label, D hidden size, V vocabulary.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from blip2_train.distributed import mean_over_processes
from blip2_train.errors import ConfigError
from blip2_train.types import (
    AnswerBatch,
    AnsweringEncoder,
    Batch,
    GenerationBatch,
    GenerativeEncoder,
    ObjectiveOutput,
)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sums of losses and of correct predictions; the forward pass computes the gradient of the states, by chunks."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, chunk: int
    ) -> tuple[Tensor, Tensor]:
        exact = torch.promote_types(states.dtype, torch.float32)
        total, right = states.new_zeros((), dtype=exact), states.new_zeros((), dtype=exact)
        gradient = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        for first in range(0, len(labels), chunk):
            rows, targets = states[first : first + chunk], labels[first : first + chunk]
            logits = F.linear(rows.to(weight.dtype), weight, bias).to(exact)
            log_probabilities = logits.log_softmax(dim=1)
            total -= log_probabilities.gather(1, targets[:, None]).sum()
            right += (logits.argmax(dim=1) == targets).sum()
            if gradient is not None:
                probabilities = log_probabilities.exp()
                probabilities[torch.arange(len(targets), device=targets.device), targets] -= 1.0
                gradient[first : first + chunk] = (probabilities.to(weight.dtype) @ weight).to(states.dtype)
        ctx.save_for_backward(*([] if gradient is None else [gradient]))
        ctx.mark_non_differentiable(right)
        return total, right

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0].to(gradient.dtype), None, None, None, None


def chunked_cross_entropy(
    states: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, chunk: int = 512
) -> tuple[Tensor, Tensor]:
    """Cross-entropy under a frozen vocabulary head, without ever holding all logits.

    Args:
        states: `(K, D)`: last states at the labelled positions only.
        weight: `(V, D)`, frozen.
        bias: `(V,)`, frozen, or None.
        labels: `(K,)`, int64, in 0 … V - 1.
        chunk: Rows whose logits exist at a time; memory is `chunk * V`, whatever the batch.

    Returns:
        Sum of the losses (nats) and number of tokens predicted correctly, scalars in at least float32.

    Raises:
        ValueError: if the head trains; its gradient is not computed.

    Example:
        >>> states, head = torch.zeros(3, 2), torch.ones(4, 2)
        >>> [round(float(v), 3) for v in chunked_cross_entropy(states, head, None, torch.tensor([0, 1, 0]))]
        [4.159, 2.0]
    """
    if weight.requires_grad or (bias is not None and bias.requires_grad):
        raise ValueError("the vocabulary head must be frozen: the chunked loss gives it no gradient")
    with torch.autocast(states.device.type, enabled=False):
        total, right = _ChunkedCrossEntropy.apply(states, weight, bias, labels, chunk)
    return total, right


class GenerationObjective:
    """The language-modelling loss of stage 2 and of fine-tuning.

    Args:
        chunk: Labelled tokens whose logits exist at a time.

    Source: BLIP-2 (Li et al., 2023, arXiv:2301.12597), section 3.3; no label smoothing, as the released code.
    Differences from it: the vocabulary head runs on labelled positions only, and the mean is over the labelled tokens
    of all processes.
    """

    batch_type: ClassVar[type[Batch]] = GenerationBatch
    contrasts_within_batch: ClassVar[bool] = False

    def __init__(self, *, chunk: int = 512) -> None:
        if chunk < 1:
            raise ConfigError(f"objective.chunk must be at least 1, got {chunk}")
        self.chunk = chunk

    def __call__(
        self, model: GenerativeEncoder, batch: GenerationBatch, generator: torch.Generator | None = None
    ) -> ObjectiveOutput:
        """The loss of this process's B samples, on the model's device; it samples nothing from `generator`."""
        total, right = self.sums(model, batch)
        count = total.new_full((), float(len(batch.target_positions)))  # filled on the device: no copy that waits
        mean_count = mean_over_processes(count).clamp_min(1.0)
        loss = total / mean_count
        return ObjectiveOutput(loss, {"lm": loss.detach()}, {"lm_accuracy": right / mean_count})

    def sums(self, model: GenerativeEncoder, batch: GenerationBatch) -> tuple[Tensor, Tensor]:
        """Sum of the losses of the labelled tokens, and number of them predicted correctly."""
        states = self.states(model, batch)
        weight, bias = model.output_layer()
        chosen = states.flatten(0, 1).index_select(0, batch.target_positions)
        labels = batch.labels.flatten().index_select(0, batch.target_positions)
        return chunked_cross_entropy(chosen, weight, bias, labels, self.chunk)

    def states(self, model: Any, batch: Any) -> Tensor:
        """Last states `(B, T, D)` of the language model, aligned with the labels."""
        states: Tensor = model.predicting_states(
            batch.pixel_values, batch.input_ids, batch.attention_mask, batch.labels
        )
        return states

    def chance_levels(self, contrasted: int, vocab_size: int) -> dict[str, float]:
        """Loss of a model that has learned nothing, in nats: ln V."""
        return {"lm": math.log(vocab_size)}


class AnswerObjective(GenerationObjective):
    """The same loss of answers to questions about images; the Q-Former may read the questions too.

    Source: BLIP-2, section 4.3.
    """

    batch_type: ClassVar[type[Batch]] = AnswerBatch

    def states(self, model: AnsweringEncoder, batch: AnswerBatch) -> Tensor:
        """Last states `(B, T, D)` of the language model, aligned with the labels."""
        return model.predicting_states(
            batch.pixel_values, batch.input_ids, batch.attention_mask, batch.labels, batch.question_tokens
        )
