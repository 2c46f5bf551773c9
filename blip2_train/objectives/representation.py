"""Stage 1 of BLIP-2: contrast, matching and grounded generation from one pass over the images.

Shape letters: B batch per process, N over all processes, Q queries, T text tokens, E feature size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

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
from blip2_train.objectives.contrastive import contrastive_loss, contrastive_targets
from blip2_train.objectives.language_modelling import count_targets, next_token_loss, predicting_tokens
from blip2_train.objectives.negatives import (
    Choices,
    MatchingPlan,
    PairsToMatch,
    pairs_to_match,
    plan_matching,
    planned_pairs,
)
from blip2_train.objectives.pairing import BatchLayout
from blip2_train.objectives.whole_batch import (
    EncodedMicroBatches,
    WholeBatch,
    chunked_similarity,
    gradients_of,
    trained_parameters,
)
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
    accumulation: over those of each micro-batch, unless the whole batch is contrasted).
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
        contrast: Literal["micro", "batch"] = "micro",
    ) -> None:
        super().__init__()
        self.itc_weight, self.itm_weight, self.itg_weight = itc_weight, itm_weight, itg_weight
        self.label_smoothing, self.gather, self.negatives = label_smoothing, gather, negatives
        self.mask_same_image, self.contrast = mask_same_image, contrast
        if self.gather not in ("detached", "full"):
            raise ConfigError(f"objective.gather is {self.gather!r}; use 'detached' or 'full'")
        if self.negatives not in get_args(matching.NegativeSampling):
            raise ConfigError(f"objective.negatives is {self.negatives!r}; use 'masked', 'floor' or 'uniform'")
        if self.contrast not in ("micro", "batch"):
            raise ConfigError(f"objective.contrast is {self.contrast!r}; use 'micro' or 'batch'")
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
        texts = _trimmed(batch, largest_over_processes(batch.longest_text))
        layout = BatchLayout(rows=len(batch), processes=world_size())
        images = model.encode_image(batch.pixel_values)
        text_features = model.encode_text(*texts)
        contrast = self._contrast(model, images.image_features, text_features, batch.image_ids, layout)
        choices = self._choose(contrast, layout, generator)
        itm, stats = self._match(model, pairs_to_match(model, images, texts, choices, layout), layout.rows)
        itg = self._generate(model, images, texts, _mean_targets(texts, layout, text_features.dtype))
        return self._output(model, contrast.loss, itm, itg, stats | _contrast_stats(contrast, choices))

    def first_pass(
        self,
        model: ImageTextEncoder,
        batches: Sequence[ImageTextBatch],
        generator: torch.Generator,
        seed: Callable[[int], Any],
        *,
        keep_features: bool = True,
        load: Callable[[ImageTextBatch], ImageTextBatch] = lambda batch: batch,
    ) -> WholeBatch:
        """Contrast all micro-batches of a step; then each of them has a `second_pass`.

        Their mean loss, and its gradients, are those of one batch that holds all samples of all processes.

        Args:
            model: The stage-1 model.
            batches: This process's k micro-batches of B samples.
            generator: As for `forward`.
            seed: Called with the number of each micro-batch before it is encoded. It sets the random state, as it must
                be set again before the second pass of this micro-batch: dropout is then the same in both.
            keep_features: Whether the tower's features are kept; those of a tower that trains must not be, as it has to
                run again for its gradients.
            load: Gives a micro-batch on the model's device, as the model reads it.
        """
        layout = BatchLayout(rows=len(batches[0]), processes=world_size(), micro_batches=len(batches))
        length = largest_over_processes(max(batch.longest_text for batch in batches))
        encoded = EncodedMicroBatches(len(batches), keep_features)
        with torch.no_grad():
            for index, batch in enumerate(batches):
                loaded = load(batch)
                texts = _trimmed(loaded, length)
                seed(index)
                encoded.add(model.encode_image(loaded.pixel_values), model.encode_text(*texts), texts, loaded.image_ids)
        torch.clear_autocast_cache()  # of weights that were cast where no gradient is recorded
        image_features, text_features, image_ids, texts = encoded.joined()
        with torch.enable_grad():
            features = [image_features.requires_grad_(), text_features.requires_grad_()]
            contrast = self._contrast(model, image_features, text_features, image_ids, layout)
        parameters = trained_parameters(model, model.temperature, self)
        (image_gradient, text_gradient), parameter_gradients = gradients_of(contrast.loss, features, parameters)
        choices = self._choose(contrast, layout, generator)
        return WholeBatch(
            layout=layout,
            patch_features=encoded.patch_features,
            texts=texts,
            plans=self._plan(choices, layout, keep_features),
            loss=contrast.loss.detach(),
            image_gradient=image_gradient,
            text_gradient=text_gradient,
            parameter_gradients=parameter_gradients,
            mean_targets=_mean_targets(texts, layout, text_features.dtype),
            stats=_contrast_stats(contrast, choices),
        )

    def second_pass(
        self,
        model: ImageTextEncoder,
        batch: ImageTextBatch,
        whole: WholeBatch,
        micro_batch: int,
        *,
        run_tower: bool = False,
    ) -> ObjectiveOutput:
        """The three losses of a micro-batch of a step that was contrasted as a whole.

        Args:
            model: The stage-1 model, unchanged since the first pass.
            batch: The micro-batch, on the model's device.
            whole: From `first_pass`.
            micro_batch: Number of the micro-batch.
            run_tower: Whether a tower whose features were kept runs again.
        """
        texts = whole.texts_of(micro_batch)
        if whole.patch_features is None or run_tower:
            images = model.encode_image(batch.pixel_values)
        else:
            images = model.encode_patches(whole.patch_features[whole.rows(micro_batch)])
        text_features = model.encode_text(*texts)
        with torch.autocast(text_features.device.type, enabled=False):
            itc = whole.contrastive_loss(micro_batch, images.image_features, text_features)
        table = images.patch_features if whole.patch_features is None else whole.patch_features
        pairs = planned_pairs(model, images, table, texts, whole.texts, whole.plans[micro_batch], whole.layout)
        itm, stats = self._match(model, pairs, whole.layout.rows)
        itg = self._generate(model, images, texts, whole.mean_targets)
        return self._output(model, itc, itm, itg, stats | whole.stats)

    def _output(
        self, model: ImageTextEncoder, itc: Tensor, itm: Tensor, itg: Tensor, stats: dict[str, Tensor]
    ) -> ObjectiveOutput:
        terms = {"itc": itc, "itm": itm, "itg": itg}
        total = self.itc_weight * itc + self.itm_weight * itm + self.itg_weight * itg
        stats = {**stats, "temperature": model.temperature.detach()}
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
        image_features: Tensor,
        text_features: Tensor,
        image_ids: Tensor,
        layout: BatchLayout,
    ) -> _Contrast:
        gather = gather_rows if self.gather == "detached" else gather_rows_with_gradient
        with torch.autocast(text_features.device.type, enabled=False):
            all_texts = layout.in_order(gather(text_features))
            all_images = layout.in_order(gather(image_features))
            to_texts = chunked_similarity(image_features, all_texts, layout.micro_batches)
            to_images = chunked_similarity(all_images, text_features, layout.micro_batches).T
            image_to_text = self.contrastive_logits(model, to_texts)
            text_to_image = self.contrastive_logits(model, to_images)
            positives = _own_columns(layout, text_features.device)
            if self.mask_same_image:
                positives = image_ids[:, None] == layout.in_order(gather_rows(image_ids))[None, :]
            loss = self.contrastive_loss(image_to_text, text_to_image, positives)
        return _Contrast(loss, image_to_text, text_to_image, positives)

    def _match(self, model: ImageTextEncoder, pairs: PairsToMatch, rows: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The matching loss of pairs, `rows` of which match, and its accuracies."""
        logits, weights = model.match(pairs.image_kvs, *pairs.texts), pairs.weights
        labels = matching.matching_labels(rows, len(weights) - rows, logits.device)
        loss = matching.matching_loss(logits, labels, weights, pairs.mean_weight)
        right = (logits.detach().argmax(dim=1) == labels).to(logits.dtype) * weights
        return loss, {
            "itm_accuracy_match": right[:rows].mean(),
            "itm_accuracy_mismatch": right[rows:].sum() / (pairs.mean_weight - rows).clamp_min(1.0),
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

    def _plan(self, choices: Choices, layout: BatchLayout, keep_features: bool) -> list[MatchingPlan]:
        """Where pairs are matched: those of a trained tower only at their images, whose gradients it needs there."""
        return plan_matching(choices, layout, limited=keep_features)

    def _generate(
        self, model: ImageTextEncoder, images: EncodedImages, texts: TextTokens, mean_targets: Tensor
    ) -> Tensor:
        ids, mask = texts
        decoder_ids = torch.cat([torch.full_like(ids[:, :1], model.decoder_start_token_id), ids[:, 1:]], dim=1)
        logits = model.caption_logits(images, *predicting_tokens(decoder_ids, mask))
        return next_token_loss(logits, decoder_ids, mask, mean_targets, self.label_smoothing)

    def chance_levels(self, contrasted: int, vocab_size: int) -> dict[str, float]:
        """Loss of a model that has learned nothing, in nats: ITC ln N with N pairs contrasted, ITM 0.6365, ITG ln V."""
        return {"itc": math.log(contrasted), "itm": matching.CHANCE, "itg": math.log(vocab_size)}


def _trimmed(batch: ImageTextBatch, length: int) -> TextTokens:
    return TextTokens(batch.input_ids[:, :length], batch.attention_mask[:, :length])


def _mean_targets(texts: TextTokens, layout: BatchLayout, dtype: torch.dtype) -> Tensor:
    """Tokens that are predicted per micro-batch of a process, on average."""
    return mean_over_processes(count_targets(texts.attention_mask).to(dtype)) / layout.micro_batches


def _own_columns(layout: BatchLayout, device: torch.device) -> Tensor:
    """`(kB, N)`, True where a row of this process meets its own column."""
    own = torch.zeros(layout.micro_batches * layout.rows, layout.total, dtype=torch.bool, device=device)
    for micro_batch, rows in enumerate(own.split(layout.rows)):
        first = (micro_batch * layout.processes + rank()) * layout.rows
        rows[:, first : first + layout.rows].fill_diagonal_(True)
    return own


def _contrast_stats(contrast: _Contrast, choices: Choices) -> dict[str, Tensor]:
    without = (~choices.usable).to(contrast.image_to_text.dtype)
    return {
        "itm_share_without_negative": without.mean(),
        "itc_accuracy": _accuracy(contrast.image_to_text, contrast.positives),
    }


def _accuracy(logits: Tensor, positives: Tensor) -> Tensor:
    best = logits.detach().argmax(dim=1, keepdim=True)
    return positives.gather(1, best).float().mean()
