"""Scores of a stage-1 model on held-out pairs: the three losses, matching accuracy, and retrieval.

The scores do not depend on the number of processes or the size of batches: contrast and hard negatives are over all
held-out pairs, and each process matches the pairs whose image it holds. Shape letters: n pairs of this process, N of
all, Q queries, P patches, E feature size, T text tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from blip2_train.distributed import rank
from blip2_train.evaluation.metrics.metric_states import Rows, Totals
from blip2_train.evaluation.metrics.recall import pair_recall
from blip2_train.objectives.contrastive import image_text_similarity
from blip2_train.objectives.language_modelling import count_targets, next_token_loss, predicting_tokens
from blip2_train.objectives.matching import sample_hard_negatives
from blip2_train.objectives.representation import RepresentationObjective
from blip2_train.types import ImageTextBatch, ImageTextEncoder


@dataclass(frozen=True, kw_only=True)
class PairSimilarity:
    """How well the first images and texts of this process fit each other."""

    scores: Tensor
    """`(I, T)`: cosine similarity."""
    own: Tensor
    """`(I, T)`, bool, True = of one pair, or of one image."""
    texts: list[Tensor]
    """Ids of each text, without padding."""


class RepresentationEvaluation:
    """Collects held-out batches, then scores them.

    Args:
        objective: That of training, whose contrastive loss and label smoothing count, so that the losses can be
            compared; None = the default one.
        seed: Seed of the hard negatives.
        shown: First images and texts of this process whose similarity is kept in `similarity`.
    """

    def __init__(
        self, objective: RepresentationObjective | None = None, seed: int = 0, shown: tuple[int, int] = (0, 0)
    ) -> None:
        self.objective, self.seed, self.shown = objective or RepresentationObjective(), seed, shown
        self.similarity: PairSimilarity | None = None
        """After `compute`; None if nothing is to be shown."""
        self._pairs = Rows("image_features", "text_features", "input_ids", "attention_mask", "image_ids", "process")
        self._patches: list[Tensor] = []
        """Of this process's pairs, on the CPU: they never travel."""
        self._itg, self._itm = Totals(2), Totals(2, 3)

    def __len__(self) -> int:
        """Pairs of this process."""
        return sum(map(len, self._patches))

    @torch.no_grad()
    def add(self, model: ImageTextEncoder, batch: ImageTextBatch) -> None:
        """Encode one batch of held-out pairs."""
        ids, mask = batch.input_ids, batch.attention_mask
        images = model.encode_image(batch.pixel_values)
        self._patches.append(images.patch_features.cpu())
        self._pairs.update(
            image_features=images.image_features,
            text_features=model.encode_text(ids, mask),
            input_ids=ids,
            attention_mask=mask,
            image_ids=batch.image_ids,
            process=torch.full_like(batch.image_ids, rank()),
        )
        start = torch.full_like(ids[:, :1], model.decoder_start_token_id)
        decoder_ids = torch.cat([start, ids[:, 1:]], dim=1)
        count = count_targets(mask)
        logits = model.caption_logits(images, *predicting_tokens(decoder_ids, mask))
        loss = next_token_loss(logits, decoder_ids, mask, count, self.objective.label_smoothing)
        self._itg.update(torch.tensor([float(loss * count), float(count)], dtype=torch.float64))

    @torch.no_grad()
    def compute(self, model: ImageTextEncoder, device: torch.device, batch_size: int = 64) -> dict[str, float]:
        """Scores over the pairs of all processes; every process must call it.

        Args:
            model: The model that encoded the pairs.
            device: Device of the model.
            batch_size: Pairs per matching pass.

        Returns:
            `loss_itc`, `loss_itm`, `loss_itg` (nats), `itm_accuracy_match`, `itm_accuracy_mismatch` (percent),
            `image_to_text_r1` … `text_to_image_r10` and their mean `recall_mean` (percent), and `pairs`.
        """
        with self._pairs.of_all() as everything:
            scores, pairs = self._contrast(model, everything)
            itg, count = self._itg.compute().tolist()
            scores["loss_itg"] = itg / max(1.0, count)
            scores |= self._match(model, everything, pairs, device, batch_size)
            scores["pairs"] = float(len(everything["image_ids"]))
        return scores

    def _contrast(self, model: ImageTextEncoder, everything: dict[str, Tensor]) -> tuple[dict[str, float], Tensor]:
        """Contrast and recall, and the pairs to match: `(3N, 3)` rows of (image, text, label)."""
        image_ids = everything["image_ids"]
        similarity = image_text_similarity(everything["image_features"], everything["text_features"])
        logits = self.objective.contrastive_logits(model, similarity.to(model.temperature.device)).cpu()
        same = image_ids[:, None] == image_ids[None, :]
        total = len(image_ids)
        positives = torch.eye(total, dtype=torch.bool)
        scores = {"loss_itc": self.objective.contrastive_loss(logits, logits.T, positives).item()}
        recall = pair_recall(similarity, image_ids, image_ids)
        if all(self.shown):
            self.similarity = self._first(everything, similarity)
        scores |= recall | {"recall_mean": sum(recall.values()) / len(recall)}
        uniforms = torch.rand(2, total, generator=torch.Generator().manual_seed(self.seed), dtype=torch.float64)
        text, has_text = sample_hard_negatives(logits, same, uniforms[0])
        image, has_image = sample_hard_negatives(logits.T, same, uniforms[1])
        index = torch.arange(total)
        mismatches = [
            torch.stack([index, text, torch.zeros_like(index)], 1)[has_text],
            torch.stack([image, index, torch.zeros_like(index)], 1)[has_image],
        ]
        return scores, torch.cat([torch.stack([index, index, torch.ones_like(index)], 1), *mismatches])

    def _first(self, everything: dict[str, Tensor], similarity: Tensor) -> PairSimilarity:
        mine = (everything["process"] == rank()).nonzero()[:, 0]
        images, texts = mine[: self.shown[0]], mine[: self.shown[1]]
        ids, masks = everything["input_ids"][texts], everything["attention_mask"][texts].bool()
        return PairSimilarity(
            scores=similarity[images][:, texts].float().cpu(),
            own=(everything["image_ids"][images][:, None] == everything["image_ids"][texts][None, :]).cpu(),
            texts=[row[mask].cpu() for row, mask in zip(ids, masks, strict=True)],
        )

    def _match(
        self,
        model: ImageTextEncoder,
        everything: dict[str, Tensor],
        pairs: Tensor,
        device: torch.device,
        batch_size: int,
    ) -> dict[str, float]:
        features = torch.cat(self._patches) if self._patches else torch.empty(0)
        first = int((everything["process"] < rank()).sum())
        mine = pairs[everything["process"][pairs[:, 0]] == rank()]
        mine = mine[mine[:, 0].argsort(stable=True)]  # image by image, so that one is projected once for all its pairs
        for chunk in torch.split(mine, batch_size):
            image, text, label = chunk.unbind(1)
            known, row = torch.unique(image, return_inverse=True)
            image_kv = model.project_image(features[known - first].to(device)).select(row.to(device))
            ids, mask = (everything[name][text].to(device) for name in ("input_ids", "attention_mask"))
            log_probabilities = model.match([image_kv], ids, mask).cpu().double().log_softmax(dim=1)
            loss = -log_probabilities.gather(1, label[:, None])[:, 0]
            right = (log_probabilities.argmax(dim=1) == label).double()
            for kind, row in enumerate(sums := torch.zeros(2, 3, dtype=torch.float64)):
                chosen = label == kind
                row += torch.stack([loss[chosen].sum(), right[chosen].sum(), chosen.double().sum()])
            self._itm.update(sums)
        mismatch, match = self._itm.compute()
        return {
            "loss_itm": ((mismatch[0] + match[0]) / (mismatch[2] + match[2]).clamp_min(1)).item(),
            "itm_accuracy_match": 100 * (match[1] / match[2].clamp_min(1)).item(),
            "itm_accuracy_mismatch": 100 * (mismatch[1] / mismatch[2].clamp_min(1)).item(),
        }
