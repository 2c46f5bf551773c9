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
from blip2_train.evaluation.embedding import PAIRS_AT_ONCE, TEXTS_AT_ONCE
from blip2_train.evaluation.generation import batches
from blip2_train.evaluation.image_prefetch import read_ahead
from blip2_train.evaluation.inference import Blip2
from blip2_train.evaluation.precision import suitable_autocast
from blip2_train.evaluation.recall import recall_at
from blip2_train.evaluation.report.content import Example
from blip2_train.evaluation.shortlist import Shortlists, join
from blip2_train.evaluation.task import Row, TaskScores, data_fingerprint
from blip2_train.objectives.contrastive import image_text_similarity
from blip2_train.system.atomic_write import write_atomically

Rerank = Literal["released", "log_odds"]


class RetrievalTask:
    """Recall@1/5/10 both ways, by contrast alone and after matching.

    What is not on a shortlist follows in the order of contrast. Images are divided among the processes by whole
    batches, and a pair is matched where its image is, so features of patches never travel; they are kept in 16 bits.

    Args:
        name: Of the task.
        title: As a person would say it.
        images: M, with the captions that are their texts.
        folder: Of the images.
        shortlist: K, 128 in the paper.
        max_text_length: Tokens per text; 35 in the released code (32 in training).
        batch_size: B.
        rerank: Score of a pair on a shortlist. `released` = matching logit, mean over the queries, plus similarity.
            `log_odds` = log-odds of a match plus similarity divided by the temperature: optimal for a head whose
            negatives were drawn by the softmax of just that, as it learns only what contrast does not know.

    Source: BLIP-2, section 4.4; `compute_sim_matrix` of the released code, which gives -100 to what is not on the list.
    """

    kind, example_metric, headline = "retrieval", "rank", "recall_mean"
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
        owners = [number for number, image in enumerate(self.images) for _ in image.captions]
        self._image_of_text = torch.tensor(owners, dtype=torch.long)

    def settings(self) -> Mapping[str, Any]:
        """What decides the predictions."""
        return {
            "data": data_fingerprint(self.images),
            "shortlist": self._k,
            "max_text_length": self._length,
            "batch_size": self._size,
            "rerank": self._rerank,
        }

    def __len__(self) -> int:
        return len(self._batches)

    def start(self, model: Blip2) -> None:
        """Features of all images and texts, and the shortlists."""
        self._network = model.image_text(f"task {self.name}")
        processor = replace(model.processor, max_text_length=self._length)
        self._ids, self._mask = processor.texts(self._texts)
        self._patches: dict[int, Tensor] = {}
        mine = range(rank(), len(self._batches), world_size())
        with torch.inference_mode(), suitable_autocast(self._network):
            pixels_ahead = read_ahead(model.processor, map(self._files, mine))
            images = {number: self._encode(number, pixels) for number, pixels in zip(mine, pixels_ahead, strict=True)}
            texts = list(batches(len(self._texts), TEXTS_AT_ONCE))[rank() :: world_size()]
            own = {rows.start: self._encode_texts(model, rows) for rows in texts}
            parts = {start: part for found in gather_objects(own) for start, part in found.items()}
            features = torch.cat([parts[start] for start in sorted(parts)]).float()
            self._rank_by_contrast(images, features)

    def paths(self, batch: int) -> list[Path]:
        """None: the features of the images are kept from `start`."""
        return []

    def predict(self, model: Blip2, batch: int, pixel_values: Tensor) -> list[Row]:
        """The matching scores of every pair that a shortlist asks for, image by image."""
        with torch.inference_mode(), suitable_autocast(self._network):
            return [
                self._match(number, self._patches[batch][place : place + 1], model.device)
                for place, number in enumerate(range(*self._batches[batch].indices(len(self.images))))
            ]

    def score(self, rows: Sequence[Row]) -> TaskScores:
        """Recall in percent, before (`itc/…`) and after matching, and the mean of the six."""
        ahead = {name: counts.clone() for name, counts in self._ahead.items()}
        by_text: dict[int, list[tuple[int, float]]] = {}
        for row in rows:
            image = row["image"]
            right = [score for text, score in row["image_to_text"] if self._image_of_text[text] == image]
            if right:
                best = max(right)
                wrong = [score for text, score in row["image_to_text"] if self._image_of_text[text] != image]
                ahead["image_to_text"][image] = sum(score >= best for score in wrong)
            for text, score in row["text_to_image"]:
                by_text.setdefault(text, []).append((image, score))
        for text, found in by_text.items():
            image = int(self._image_of_text[text])
            own = [score for other, score in found if other == image]
            if own:
                ahead["text_to_image"][text] = sum(score >= own[0] for other, score in found if other != image)
        scores = recall_at(ahead)
        scores["recall_mean"] = sum(scores.values()) / len(scores)
        before = {f"itc/{name}": value for name, value in recall_at(self._ahead).items()}
        counted = zip(self.images, ahead["image_to_text"].tolist(), strict=True)
        found_at = {str(image.identity): 1.0 + count for image, count in counted}
        return TaskScores(scores={**scores, **before}, per_sample=found_at)

    def examples(self, rows: Sequence[Row], scored: TaskScores) -> list[Example]:
        """Every image with the text that came first; its score is the rank of the first right one."""
        first = {row["image"]: _best_first(row["image_to_text"])[0] for row in rows}
        return [
            Example(
                id=str(image.identity),
                image=self.folder / image.path,
                prediction=self._texts[first[number]],
                references=image.captions,
                score=scored.per_sample.get(str(image.identity)),
            )
            for number, image in enumerate(self.images)
        ]

    def write(self, rows: Sequence[Row], path: Path) -> None:
        """Write the texts of each image's list, best first, and the other way round; no server asks for them."""
        texts: dict[int, list[list[float]]] = {}
        for row in rows:
            for text, score in row["text_to_image"]:
                texts.setdefault(text, []).append([row["image"], score])
        by_image = {self.images[row["image"]].identity: _best_first(row["image_to_text"]) for row in rows}
        by_text = {self._texts[text]: _best_first(found) for text, found in sorted(texts.items())}
        found = {"image_to_text": by_image, "text_to_image": by_text}
        write_atomically(path, json.dumps(found, ensure_ascii=False) + "\n")

    def _files(self, number: int) -> list[Path]:
        return [self.folder / image.path for image in self.images[self._batches[number]]]

    def _encode(self, number: int, pixel_values: Tensor) -> Tensor:
        """Features `(B, Q, E)` of one batch of images, float16; those of its patches are kept."""
        images = self._network.encode_image(pixel_values.to(self._network.query_tokens.device))
        self._patches[number] = images.patch_features.half().cpu()
        return images.image_features.half().cpu()

    def _encode_texts(self, model: Blip2, rows: slice) -> Tensor:
        ids, mask = self._ids[rows].to(model.device), self._mask[rows].to(model.device)
        return self._network.encode_text(ids, mask).half().cpu()

    def _rank_by_contrast(self, images: dict[int, Tensor], texts: Tensor) -> None:
        """Shortlists of all images and texts, and how many wrong ones contrast puts before the right ones."""
        own, right_of_text, ahead_of_image = Shortlists(self._k), torch.full((len(texts),), torch.inf), {}
        similarities = {
            self._batches[number].start: image_text_similarity(features.float(), texts)
            for number, features in sorted(images.items())
        }
        for first, block in similarities.items():
            own.add(first, block)
            right = self._is_right(first, block)
            best = block.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
            ahead_of_image[first] = ((block >= best) & ~right).sum(dim=1)
            row, column = right.nonzero().unbind(1)
            right_of_text[column] = block[row, column]
        everyone = gather_objects((own, right_of_text, ahead_of_image))
        self._of_image, of_text = join([part[0] for part in everyone])
        self._asking = of_text.inverted(len(self.images))
        best = torch.stack([part[1] for part in everyone]).amin(dim=0)
        ahead_of_text = torch.zeros(len(texts), dtype=torch.int64)
        for first, block in similarities.items():
            ahead_of_text += ((block >= best) & ~self._is_right(first, block)).sum(dim=0)
        counts = {first: ahead for part in everyone for first, ahead in part[2].items()}
        self._ahead = {
            "image_to_text": torch.cat([counts[first] for first in sorted(counts)]),
            "text_to_image": torch.stack(gather_objects(ahead_of_text)).sum(dim=0),
        }

    def _is_right(self, first: int, block: Tensor) -> Tensor:
        """Which pairs of a block `(B, N)` belong together, bool."""
        return torch.arange(first, first + len(block))[:, None] == self._image_of_text[None, :]

    def _match(self, number: int, patches: Tensor, device: torch.device) -> Row:
        """Scores of all pairs of image `number`, whose features are `(1, P, Dv)`, that a shortlist asks for."""
        listed, listed_values = self._of_image.numbers[number], self._of_image.values[number]
        asking, asking_values = self._asking[number]
        wanted = torch.unique(torch.cat([listed, asking]))
        image_kv = self._network.project_image(patches.float().to(device))
        logits = []
        for rows in batches(len(wanted), PAIRS_AT_ONCE):
            ids, mask = self._ids[wanted[rows]].to(device), self._mask[wanted[rows]].to(device)
            logits.append(self._network.match([image_kv.repeat(len(ids))], ids, mask).float().cpu())
        mismatch, scores = torch.cat(logits).unbind(1)
        scale = 1.0
        if self._rerank == "log_odds":
            scores, scale = scores - mismatch, 1.0 / self._network.temperature.item()

        def told(texts: Tensor, values: Tensor) -> list[list[float]]:
            final = scores[torch.searchsorted(wanted, texts)] + scale * values
            return [list(pair) for pair in zip(texts.tolist(), final.tolist(), strict=True)]

        return {
            "image_id": self.images[number].identity,
            "image": number,
            "image_to_text": told(listed, listed_values),
            "text_to_image": told(asking, asking_values),
        }


def _best_first(pairs: Sequence[Sequence[float]]) -> list[int]:
    return [int(number) for number, _ in sorted(pairs, key=lambda pair: -pair[1])]
