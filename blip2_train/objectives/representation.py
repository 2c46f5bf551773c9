"""Stage 1 of BLIP-2: contrast, matching and grounded generation from one pass over the images.

Shape letters: B batch per process, N over all processes, Q queries, T text tokens, E feature size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from blip2_train.distributed import (
    gather_rows,
    gather_rows_with_gradient,
    largest_over_processes,
    mean_over_processes,
    rank,
    to_device,
    world_size,
)
from blip2_train.errors import ConfigError
from blip2_train.objectives import matching
from blip2_train.objectives.contrastive import contrastive_loss, contrastive_targets, image_text_similarity
from blip2_train.objectives.language_modelling import count_targets, next_token_loss, predicting_tokens
from blip2_train.objectives.negatives import Choices, pairs_to_match
from blip2_train.objectives.pairing import BatchLayout
from blip2_train.types import (
    Batch,
    EncodedImages,
    ImageTextBatch,
    ImageTextEncoder,
    ObjectiveOutput,
    TextTokens,
)


@dataclass(frozen=True, slots=True)
class _Contrast:
    """Output of the contrastive part, which the matching part reads."""

    loss: Tensor
    image_to_text: Tensor
    """`(B, N)` logits."""
    text_to_image: Tensor
    """`(B, N)` logits."""
    positives: Tensor
    """`(B, N)`, bool, True where row and column belong together: never negatives."""


class RepresentationObjective(nn.Module):
    """ITC + ITM + ITG.

    Another contrastive loss is a subclass that overrides `contrastive_logits`, `contrastive_loss` and `chance_levels`;
    training and validation call them (docs/add-an-objective.md).

    Args:
        itc_weight: Weight of the contrastive loss in the sum.
        itm_weight: Weight of the matching loss.
        itg_weight: Weight of the generation loss; at 0 (as with the others) it is still logged, and has no gradient.
        label_smoothing: Of ITC and ITG; ITM has none.
        gather: `detached`: features of the other side are constants, also one's own (the released code with several
            processes); `full`: the gradient flows to the process that owns a feature.
        negatives: How hard negatives are sampled, see `sample_hard_negatives`.
        mask_same_image: Samples that show the same image (`image_ids`) share the contrastive target and are never
            each other's negatives (the released retrieval fine-tuning; off in pre-training).

    Source: BLIP-2 (Li et al., 2023, arXiv:2301.12597), section 3.2. Differences from the released code: similarities in
    float32; text trimmed to the longest caption of the global batch; a row without any valid negative is left out of
    ITM instead of using a positive; means are over the samples of all processes, so their number does not matter (with
    accumulation: over those of each micro-batch).
    """

    batch_type: ClassVar[type[Batch]] = ImageTextBatch
    contrasts_within_batch: ClassVar[bool] = True

    def __init__(
        self,
        *,
        itc_weight: float = 1.0,
        itm_weight: float = 1.0,
        itg_weight: float = 1.0,
        label_smoothing: float = 0.1,
        gather: Literal["detached", "full"] = "detached",
        negatives: matching.NegativeSampling = "masked",
        mask_same_image: bool = False,
    ) -> None:
        super().__init__()
        self.itc_weight, self.itm_weight, self.itg_weight = itc_weight, itm_weight, itg_weight
        self.label_smoothing, self.gather, self.negatives = label_smoothing, gather, negatives
        self.mask_same_image = mask_same_image
        if self.gather not in ("detached", "full"):
            raise ConfigError(f"objective.gather is {self.gather!r}; use 'detached' or 'full'")
        if self.negatives not in ("masked", "floor"):
            raise ConfigError(f"objective.negatives is {self.negatives!r}; use 'masked' or 'floor'")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ConfigError(f"objective.label_smoothing must be in [0, 1), got {self.label_smoothing}")
        if min(self.itc_weight, self.itm_weight, self.itg_weight) < 0:
            raise ConfigError("objective weights must not be negative")

    def forward(self, model: ImageTextEncoder, batch: ImageTextBatch, generator: torch.Generator) -> ObjectiveOutput:
        """Compute the three losses of one batch.

        Args:
            model: The stage-1 model.
            batch: This process's B samples, on the model's device.
            generator: A CPU generator in the same state on every process; it samples the hard negatives.
        """
        length = largest_over_processes(batch.longest_text)
        input_ids, attention_mask = batch.input_ids[:, :length], batch.attention_mask[:, :length]
        images = model.encode_image(batch.pixel_values)
        contrast = self._contrast(model, images, input_ids, attention_mask, batch.image_ids)
        itm, stats = self._match(model, images, contrast, input_ids, attention_mask, generator)
        itg = self._generate(model, images, input_ids, attention_mask)
        terms = {"itc": contrast.loss, "itm": itm, "itg": itg}
        total = self.itc_weight * contrast.loss + self.itm_weight * itm + self.itg_weight * itg
        stats["itc_accuracy"] = _accuracy(contrast.image_to_text, contrast.positives)
        stats["temperature"] = model.temperature.detach()
        return ObjectiveOutput(total, {name: term.detach() for name, term in terms.items()}, stats)

    def contrastive_logits(self, model: ImageTextEncoder, similarity: Tensor) -> Tensor:
        """Logits of the contrastive loss from cosine similarities; hard negatives are sampled by their softmax.

        The temperature is learned and never clipped, as in the released code.
        """
        return similarity / model.temperature

    def contrastive_loss(self, image_to_text: Tensor, text_to_image: Tensor, positives: Tensor) -> Tensor:
        """The contrastive loss of this process's rows.

        Args:
            image_to_text: `(B, N)` logits of this process's images against all texts.
            text_to_image: `(B, N)` logits of this process's texts against all images.
            positives: `(B, N)`, bool, True where row and column belong together.

        Returns:
            Scalar, nats per row.
        """
        targets = contrastive_targets(positives, self.label_smoothing, image_to_text.dtype)
        return contrastive_loss(image_to_text, text_to_image, targets)

    def _contrast(
        self,
        model: ImageTextEncoder,
        images: EncodedImages,
        input_ids: Tensor,
        attention_mask: Tensor,
        image_ids: Tensor,
    ) -> _Contrast:
        gather = gather_rows if self.gather == "detached" else gather_rows_with_gradient
        local_texts = model.encode_text(input_ids, attention_mask)
        with torch.autocast(local_texts.device.type, enabled=False):
            all_texts, all_images = gather(local_texts), gather(images.image_features)
            image_to_text = self.contrastive_logits(model, image_text_similarity(images.image_features, all_texts))
            text_to_image = self.contrastive_logits(model, image_text_similarity(all_images, local_texts).T)
            rows, total = image_to_text.shape
            positives = _own_columns(rows, total, local_texts.device)
            if self.mask_same_image:
                positives = image_ids[:, None] == gather_rows(image_ids)[None, :]
            loss = self.contrastive_loss(image_to_text, text_to_image, positives)
        return _Contrast(loss, image_to_text, text_to_image, positives)

    def _match(
        self,
        model: ImageTextEncoder,
        images: EncodedImages,
        contrast: _Contrast,
        input_ids: Tensor,
        attention_mask: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        layout = BatchLayout(rows=len(input_ids), processes=world_size())
        choices = self._choose(contrast, layout, generator)
        pairs = pairs_to_match(model, images, TextTokens(input_ids, attention_mask), choices, layout)
        logits = model.match(pairs.image_kvs, pairs.texts.input_ids, pairs.texts.attention_mask)

        rows, weights = layout.rows, pairs.weights
        labels = matching.matching_labels(rows, len(weights) - rows, logits.device)
        loss = matching.matching_loss(logits, labels, weights, pairs.mean_weight)
        right = (logits.detach().argmax(dim=1) == labels).to(logits.dtype) * weights
        mismatches = (pairs.mean_weight - rows).clamp_min(1.0)
        return loss, {
            "itm_accuracy_match": right[:rows].mean(),
            "itm_accuracy_mismatch": right[rows:].sum() / mismatches,
            "itm_share_without_negative": (~choices.usable).to(logits.dtype).mean(),
        }

    def _choose(self, contrast: _Contrast, layout: BatchLayout, generator: torch.Generator) -> Choices:
        """Hard negatives of this process's samples, by random numbers that do not depend on how samples are divided."""
        device = contrast.positives.device
        uniforms = torch.rand(2, layout.total, generator=generator, dtype=torch.float64)
        uniforms = uniforms[:, layout.samples_of(rank()).flatten()]
        if device.type == "mps":  # Apple's GPUs have no float64
            uniforms = uniforms.float()
        uniforms = to_device(uniforms, device)
        texts, usable = matching.sample_hard_negatives(
            contrast.image_to_text, contrast.positives, uniforms[0], self.negatives
        )
        images, _ = matching.sample_hard_negatives(
            contrast.text_to_image, contrast.positives, uniforms[1], self.negatives
        )
        return Choices(texts, images, usable)

    def _generate(
        self, model: ImageTextEncoder, images: EncodedImages, input_ids: Tensor, attention_mask: Tensor
    ) -> Tensor:
        start = torch.full_like(input_ids[:, :1], model.decoder_start_token_id)
        decoder_ids = torch.cat([start, input_ids[:, 1:]], dim=1)
        logits = model.caption_logits(images, *predicting_tokens(decoder_ids, attention_mask))
        count = count_targets(attention_mask).to(torch.promote_types(logits.dtype, torch.float32))
        mean_count = mean_over_processes(count)
        return next_token_loss(logits, decoder_ids, attention_mask, mean_count, self.label_smoothing)

    def chance_levels(self, contrasted: int, vocab_size: int) -> dict[str, float]:
        """Loss of a model that has learned nothing, in nats: ITC ln N with N pairs contrasted, ITM 0.6365, ITG ln V."""
        return {"itc": math.log(contrasted), "itm": matching.CHANCE, "itg": math.log(vocab_size)}


def _own_columns(rows: int, total: int, device: torch.device) -> Tensor:
    own = torch.zeros(rows, total, dtype=torch.bool, device=device)
    own[:, rank() * rows : (rank() + 1) * rows].fill_diagonal_(True)
    return own


def _accuracy(logits: Tensor, positives: Tensor) -> Tensor:
    best = logits.detach().argmax(dim=1, keepdim=True)
    return positives.gather(1, best).float().mean()
