"""Scores of a stage-1 model on held-out pairs: the three losses, matching accuracy, and retrieval.

The scores do not depend on the number of processes or the size of batches: contrast and hard negatives are over all
held-out pairs, and each process matches the pairs whose picture it holds. Shape letters: n pairs of this process, N of
all, Q queries, P patches, E feature size, T text tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from blip2_train.distributed import gather_objects, rank
from blip2_train.evaluation.recall import retrieval_recall
from blip2_train.objectives.contrastive import contrastive_loss, contrastive_targets, image_text_similarity
from blip2_train.objectives.language_modelling import count_targets, next_token_loss
from blip2_train.objectives.matching import sample_hard_negatives
from blip2_train.types import ImageTextBatch, ImageTextEncoder


@dataclass
class _Held:
    """What is kept of the pairs seen so far, on the CPU."""

    patch_features: list[Tensor] = field(default_factory=list)
    image_features: list[Tensor] = field(default_factory=list)
    text_features: list[Tensor] = field(default_factory=list)
    input_ids: list[Tensor] = field(default_factory=list)
    attention_mask: list[Tensor] = field(default_factory=list)
    image_ids: list[int] = field(default_factory=list)
    itg_sum: float = 0.0
    itg_count: float = 0.0


class RepresentationEvaluation:
    """Collects held-out batches, then scores them.

    Args:
        label_smoothing: That of training, so that the losses can be compared.
        seed: Of the hard negatives.
    """

    def __init__(self, label_smoothing: float = 0.1, seed: int = 0) -> None:
        self.label_smoothing, self.seed = label_smoothing, seed
        self.held = _Held()

    @torch.no_grad()
    def add(self, model: ImageTextEncoder, batch: ImageTextBatch) -> None:
        """Encode one batch of held-out pairs."""
        ids, mask = batch.input_ids, batch.attention_mask
        images = model.encode_image(batch.pixel_values)
        held = self.held
        held.patch_features.append(images.patch_features.cpu())
        held.image_features.append(images.image_features.cpu())
        held.text_features.append(model.encode_text(ids, mask).cpu())
        held.input_ids.append(ids.cpu())
        held.attention_mask.append(mask.cpu())
        held.image_ids.extend(batch.image_ids.tolist())
        start = torch.full_like(ids[:, :1], model.decoder_start_token_id)
        decoder_ids = torch.cat([start, ids[:, 1:]], dim=1)
        count = count_targets(mask)
        loss = next_token_loss(
            model.caption_logits(images, decoder_ids, mask), decoder_ids, mask, count, self.label_smoothing
        )
        held.itg_sum += float(loss * count)
        held.itg_count += float(count)

    @torch.no_grad()
    def compute(self, model: ImageTextEncoder, device: torch.device, batch_size: int = 64) -> dict[str, float]:
        """Scores over the pairs of all processes; every process must call it.

        Args:
            model: The model that encoded the pairs.
            device: Where it runs.
            batch_size: Pairs per matching pass.

        Returns:
            `loss_itc`, `loss_itm`, `loss_itg` (nats), `itm_accuracy_match`, `itm_accuracy_mismatch` (percent),
            `image_to_text_r1` … `text_to_image_r10` and their mean `recall_mean` (percent), and `pairs`.
        """
        held = self.held
        own = {name: torch.cat(getattr(held, name)) if getattr(held, name) else None for name in _GATHERED}
        parts = gather_objects({**own, "image_ids": held.image_ids, "itg": (held.itg_sum, held.itg_count)})
        first = sum(len(part["image_ids"]) for part in parts[: rank()])
        everything = {name: torch.cat([p[name] for p in parts if p[name] is not None]) for name in _GATHERED}
        image_ids = torch.tensor([i for part in parts for i in part["image_ids"]])
        scores, pairs = self._contrast(model, everything, image_ids)
        scores["loss_itg"] = sum(p["itg"][0] for p in parts) / max(1.0, sum(p["itg"][1] for p in parts))
        scores |= self._match(model, everything, pairs, first, device, batch_size)
        scores["pairs"] = float(len(image_ids))
        return scores

    def _contrast(
        self, model: ImageTextEncoder, everything: dict[str, Tensor], image_ids: Tensor
    ) -> tuple[dict[str, float], Tensor]:
        """Contrast and recall, and the pairs to match: `(3N, 3)` rows of (picture, text, label)."""
        similarity = image_text_similarity(everything["image_features"], everything["text_features"])
        logits = similarity / model.temperature.detach().cpu()
        same = image_ids[:, None] == image_ids[None, :]
        total = len(image_ids)
        targets = contrastive_targets(total, 0, total, None, self.label_smoothing, logits.dtype)
        pictures, rows = torch.unique(image_ids, return_inverse=True)
        first = torch.full_like(pictures, total).scatter_reduce_(0, rows, torch.arange(total), "amin")
        scores = {"loss_itc": contrastive_loss(logits, logits.T, targets).item()}
        recall = retrieval_recall(similarity[first], rows)
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

    def _match(
        self,
        model: ImageTextEncoder,
        everything: dict[str, Tensor],
        pairs: Tensor,
        first: int,
        device: torch.device,
        batch_size: int,
    ) -> dict[str, float]:
        features = torch.cat(self.held.patch_features) if self.held.patch_features else torch.empty(0)
        mine = pairs[(pairs[:, 0] >= first) & (pairs[:, 0] < first + len(features))]
        sums = torch.zeros(2, 3, dtype=torch.float64)
        for chunk in torch.split(mine, batch_size):
            image, text, label = chunk.unbind(1)
            memory = model.project_image(features[image - first].to(device))
            ids, mask = (everything[name][text].to(device) for name in ("input_ids", "attention_mask"))
            log_probabilities = model.match([memory], ids, mask).cpu().double().log_softmax(dim=1)
            loss = -log_probabilities.gather(1, label[:, None])[:, 0]
            right = (log_probabilities.argmax(dim=1) == label).double()
            for kind in (0, 1):
                chosen = label == kind
                sums[kind] += torch.stack([loss[chosen].sum(), right[chosen].sum(), chosen.double().sum()])
        sums = torch.stack(gather_objects(sums)).sum(dim=0)
        mismatch, match = sums
        return {
            "loss_itm": ((mismatch[0] + match[0]) / (mismatch[2] + match[2]).clamp_min(1)).item(),
            "itm_accuracy_match": 100 * (match[1] / match[2].clamp_min(1)).item(),
            "itm_accuracy_mismatch": 100 * (mismatch[1] / mismatch[2].clamp_min(1)).item(),
        }


_GATHERED = ("image_features", "text_features", "input_ids", "attention_mask")
