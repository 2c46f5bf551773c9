"""Image-text retrieval: a shortlist by contrast, ranked again by matching (Li et al., 2023, section 4.4).

Shape letters: M images, N texts, B images of a batch, Q queries, P patches, E feature size, K length of a list.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from blip2_train.data.annotations.annotated_images import AnnotatedImage
from blip2_train.data.text_cleaning import without_broken_marks
from blip2_train.distributed import gather_objects, rank, world_size
from blip2_train.errors import ConfigError
from blip2_train.evaluation.embedding import PAIRS_AT_ONCE, TEXTS_AT_ONCE, length_batches
from blip2_train.evaluation.generation import batches
from blip2_train.evaluation.inference import Blip2
from blip2_train.evaluation.metrics.metric_format import MetricFormat
from blip2_train.evaluation.metrics.recall import chance_recall, recall_at, recall_formats
from blip2_train.evaluation.precision import suitable_autocast
from blip2_train.evaluation.report.content import Example, TaskLabels
from blip2_train.evaluation.shortlist import Shortlists, join, similarity_blocks
from blip2_train.evaluation.task import EvaluationTask, Row, TaskScores, data_fingerprint
from blip2_train.system.atomic_write import write_atomically

Rerank = Literal["released", "log_odds"]


class RetrievalTask(EvaluationTask):
    """Recall@1/5/10 both ways, by contrast alone and after matching.

    What is not on a shortlist follows in the order of contrast. Images are split over the processes by whole
    batches, and a pair is matched where its image is, so features of patches never travel; they are kept in 16 bits.

    Args:
        name: Name of the task.
        title: For people: `COCO captions, Karpathy test`.
        images: M, with the captions that are their texts.
        folder: Folder of the images.
        shortlist: K, 128 in the paper.
        max_text_length: Tokens per text; 35 in the released code (32 in training).
        batch_size: B.
        rerank: Score of a pair on a shortlist. `released` = matching logit, mean over the queries, plus similarity.
            `log_odds` = log-odds of a match plus similarity divided by the temperature: optimal for a head whose
            negatives were drawn by the softmax of just that, as it learns only what contrast does not contain.

    Source: BLIP-2, section 4.4; `compute_sim_matrix` of the released code, which gives -100 to what is not on the list.
    """

    encodes_first = matches_words = True
    kind, example_metric, headline = "retrieval", "rank", "recall_mean"
    labels = TaskLabels(
        metrics={**recall_formats(), "rank": MetricFormat(label="rank", digits=0, lower_is_better=True)},
        prediction="image → text: the text that came first for this image",
        references="its own texts",
    )
    closing = ("itc/image_to_text_r1", "image_to_text_r1", "itc/text_to_image_r1", "text_to_image_r1")

    def __init__(
        self,
        name: str,
        title: str,
        images: Sequence[AnnotatedImage],
        folder: Path,
        *,
        shortlist: int = 128,
        max_text_length: int = 35,
        batch_size: int = 16,
        rerank: Rerank = "released",
    ) -> None:
        if rerank not in ("released", "log_odds"):
            raise ConfigError(f"task {name}: rerank is {rerank!r}; use released or log_odds")
        if shortlist < 1:
            raise ConfigError(f"task {name}: shortlist must be at least 1, got {shortlist}")
        if wordless := next((image for image in images if not image.captions), None):
            raise ConfigError(f"task {name}: image {wordless.image_id} has no captions to be found by")
        self.name, self.title, self.images, self.folder = name, title, list(images), folder
        self._k, self._length, self._size, self._rerank = shortlist, max_text_length, batch_size, rerank
        self._batches = list(batches(len(self.images), batch_size))
        self._texts = [without_broken_marks(text) for image in self.images for text in image.captions]
        owners = [index for index, image in enumerate(self.images) for _ in image.captions]
        self._image_of_text = torch.tensor(owners, dtype=torch.long)

    def settings(self) -> Mapping[str, Any]:
        """The values that decide the predictions."""
        return {
            "data": data_fingerprint(self.images),
            "shortlist": self._k,
            "max_text_length": self._length,
            "batch_size": self._size,
            "rerank": self._rerank,
        }

    def chance(self) -> Mapping[str, float]:
        """Recall of a random order, in percent."""
        levels = chance_recall([len(image.captions) for image in self.images])
        before = {f"itc/{name}": level for name, level in levels.items()}
        return {**levels, "recall_mean": sum(levels.values()) / len(levels), **before}

    def __len__(self) -> int:
        return len(self._batches)

    def start(self, model: Blip2) -> None:
        """Tokenise the texts."""
        self._network = model.image_text(f"task {self.name}")
        processor = replace(model.processor, max_text_length=self._length)
        self._ids, self._mask = processor.texts(self._texts)
        self._lengths = self._mask.sum(dim=1)
        self._patches: dict[int, Tensor] = {}
        self._encoded: dict[int, Tensor] = {}

    def paths(self, batch: int) -> list[Path]:
        """Images of a batch."""
        return [self.folder / image.path for image in self.images[self._batches[batch]]]

    def encode(self, model: Blip2, batch: int, pixel_values: Tensor) -> None:
        """Keep the features of a batch of images, `(B, Q, E)`, and of its patches, in float16."""
        with torch.inference_mode(), suitable_autocast(self._network):
            images = self._network.encode_image(pixel_values.to(model.device))
        self._patches[batch] = images.patch_features.half().cpu()
        self._encoded[batch] = images.image_features.half().cpu()

    def exchange(self, model: Blip2) -> None:
        """Encode the texts, each process its part, and make the shortlists."""
        groups = list(length_batches(self._lengths, TEXTS_AT_ONCE))[rank() :: world_size()]
        with torch.inference_mode(), suitable_autocast(self._network):
            own = [(rows, self._encode_texts(model, rows, longest)) for rows, longest in groups]
            parts = [part for everyone in gather_objects(own) for part in everyone]
            rows, features = (torch.cat(part) for part in zip(*parts, strict=True))
            self._rank_by_contrast(self._encoded, features[rows.argsort()].float())

    def predict(self, model: Blip2, batch: int, pixel_values: Tensor) -> list[Row]:
        """The matching scores of every pair on a shortlist, image by image."""
        with torch.inference_mode(), suitable_autocast(self._network):
            return [
                self._match(index, self._patches[batch][row : row + 1], model.device)
                for row, index in enumerate(range(*self._batches[batch].indices(len(self.images))))
            ]

    def score(self, rows: Sequence[Row]) -> TaskScores:
        """Recall in percent, before (`itc/…`) and after matching, and the mean of the six."""
        ahead = {name: counts.clone() for name, counts in self._ahead.items()}
        images_of_text: dict[int, list[tuple[int, float]]] = {}
        for row in rows:
            image = row["image"]
            own = [score for text, score in row["image_to_text"] if self._image_of_text[text] == image]
            if own:
                best = max(own)
                wrong = [score for text, score in row["image_to_text"] if self._image_of_text[text] != image]
                ahead["image_to_text"][image] = sum(score >= best for score in wrong)
            for text, score in row["text_to_image"]:
                images_of_text.setdefault(text, []).append((image, score))
        for text, pairs in images_of_text.items():
            image = int(self._image_of_text[text])
            own = [score for other, score in pairs if other == image]
            if own:
                ahead["text_to_image"][text] = sum(score >= own[0] for other, score in pairs if other != image)
        scores = recall_at(ahead)
        scores["recall_mean"] = sum(scores.values()) / len(scores)
        before = {f"itc/{name}": value for name, value in recall_at(self._ahead).items()}
        counts = zip(self.images, ahead["image_to_text"].tolist(), strict=True)
        ranks = {str(image.identity): 1.0 + count for image, count in counts}
        return TaskScores(scores={**scores, **before}, per_sample=ranks)

    def examples(self, rows: Sequence[Row], scored: TaskScores) -> list[Example]:
        """Every image with the text that came first; its score is the rank of the first right one."""
        first = {row["image"]: _best_first(row["image_to_text"])[0] for row in rows}
        return [
            Example(
                id=str(image.identity),
                image=self.folder / image.path,
                prediction=self._texts[first[index]],
                references=image.captions,
                score=scored.per_sample.get(str(image.identity)),
            )
            for index, image in enumerate(self.images)
        ]

    def write(self, rows: Sequence[Row], path: Path) -> None:
        """Write the texts of each image's list, best first, and the other way round; no server takes them."""
        images_of_text: dict[int, list[list[float]]] = {}
        for row in rows:
            for text, score in row["text_to_image"]:
                images_of_text.setdefault(text, []).append([row["image"], score])
        by_image = {self.images[row["image"]].identity: _best_first(row["image_to_text"]) for row in rows}
        by_text = {self._texts[text]: _best_first(pairs) for text, pairs in sorted(images_of_text.items())}
        content = {"image_to_text": by_image, "text_to_image": by_text}
        write_atomically(path, json.dumps(content, ensure_ascii=False) + "\n")

    def _encode_texts(self, model: Blip2, rows: Tensor, longest: int) -> Tensor:
        ids, mask = (part[rows, :longest].to(model.device) for part in (self._ids, self._mask))
        return self._network.encode_text(ids, mask).half().cpu()

    def _rank_by_contrast(self, images: dict[int, Tensor], texts: Tensor) -> None:
        """Shortlists of all images and texts, and how many wrong ones contrast puts before the right ones.

        The similarities are computed twice, because what a text's right image has is known only after the first time,
        and all of them together may not fit into memory. Beside the tower's work on the images that is nothing.
        """
        features = {self._batches[batch].start: part for batch, part in images.items()}
        own, right_of_text = Shortlists(self._k), torch.full((len(texts),), torch.inf)
        ahead_of_image: list[tuple[Tensor, Tensor]] = []
        for rows, block in similarity_blocks(features, texts):
            own.add(rows, block)
            right = self._is_right(rows)
            best = block.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
            ahead_of_image.append((rows, ((block >= best) & ~right).sum(dim=1)))
            row, column = right.nonzero().unbind(1)
            right_of_text[column] = block[row, column]
        everyone = gather_objects((own, right_of_text, ahead_of_image))
        self._of_image, of_text = join([part[0] for part in everyone])
        self._of_text = of_text.inverted(len(self.images))
        best = torch.stack([part[1] for part in everyone]).amin(dim=0)
        ahead_of_text = torch.zeros(len(texts), dtype=torch.int64)
        for rows, block in similarity_blocks(features, texts):
            ahead_of_text += ((block >= best) & ~self._is_right(rows)).sum(dim=0)
        rows, counts = (torch.cat(part) for part in zip(*(pair for part in everyone for pair in part[2]), strict=True))
        self._ahead = {
            "image_to_text": counts[rows.argsort()],
            "text_to_image": torch.stack(gather_objects(ahead_of_text)).sum(dim=0),
        }

    def _is_right(self, images: Tensor) -> Tensor:
        """Which pairs of images `(B,)` and all texts belong together, `(B, N)`, bool."""
        return images[:, None] == self._image_of_text[None, :]

    def _match(self, index: int, patches: Tensor, device: torch.device) -> Row:
        """Scores of image `index`, with features `(1, P, Dv)`, and every text with which it shares a list."""
        listed, listed_similarity = self._of_image.indices[index], self._of_image.values[index]
        listing, listing_similarity = self._of_text[index]  # the texts on whose lists the image is
        texts = torch.unique(torch.cat([listed, listing]))
        image_kv = self._network.project_image(patches.float().to(device))
        logits = torch.empty(len(texts), 2)
        for rows, longest in length_batches(self._lengths[texts], PAIRS_AT_ONCE):
            ids, mask = (part[texts[rows], :longest].to(device) for part in (self._ids, self._mask))
            logits[rows] = self._network.match([image_kv.repeat(len(ids))], ids, mask).float().cpu()
        mismatch, scores = logits.unbind(1)
        scale = 1.0
        if self._rerank == "log_odds":
            scores, scale = scores - mismatch, 1.0 / self._network.temperature.item()

        def final(chosen: Tensor, similarity: Tensor) -> list[list[float]]:
            values = scores[torch.searchsorted(texts, chosen)] + scale * similarity
            return [list(pair) for pair in zip(chosen.tolist(), values.tolist(), strict=True)]

        return {
            "image_id": self.images[index].identity,
            "image": index,
            "image_to_text": final(listed, listed_similarity),
            "text_to_image": final(listing, listing_similarity),
        }


def _best_first(pairs: Sequence[Sequence[float]]) -> list[int]:
    return [int(index) for index, _ in sorted(pairs, key=lambda pair: -pair[1])]
