"""Shortlists by `topk`, against sorting everything; what they take does not grow with images times texts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from blip2_train.evaluation import shortlist
from blip2_train.evaluation.embedding import length_batches
from blip2_train.evaluation.shortlist import NearestLists, Shortlists, join, similarity_blocks
from blip2_train.models.step_memory import MostAlive
from blip2_train.objectives.contrastive import image_text_similarity


def sorted_whole(values: Tensor, candidates: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k first of every row when it is sorted by value, then by candidate."""
    rows = [
        sorted(zip(row.tolist(), own.tolist(), strict=True), key=lambda pair: (-pair[0], pair[1]))[:k]
        for row, own in zip(values, candidates, strict=True)
    ]
    return torch.tensor([[c for _, c in row] for row in rows]), torch.tensor([[v for v, _ in row] for row in rows])


@pytest.mark.parametrize("values", ["different", "ties", "ties at the end", "all equal"])
@pytest.mark.parametrize("k", [1, 5, 29, 30, 40])
def test_as_sorting_everything(values: str, k: int) -> None:
    generator = torch.Generator().manual_seed(k)
    similarity = torch.rand(50, 30, generator=generator)
    if values == "ties":
        similarity = (similarity * 8).round()
    if values == "ties at the end":
        similarity = similarity.clamp_max(0.8)
    if values == "all equal":
        similarity = torch.zeros_like(similarity)
    candidates = torch.stack([torch.randperm(90, generator=generator)[:30] for _ in range(50)])
    lists = NearestLists.of(similarity, candidates, k)
    indices, nearest = sorted_whole(similarity, candidates, k)
    assert torch.equal(lists.indices, indices) and torch.equal(lists.values, nearest)
    halves = [NearestLists.of(similarity[:, part], candidates[:, part], k) for part in (slice(0, 13), slice(13, 30))]
    merged = NearestLists.merged(halves, k)
    assert torch.equal(merged.indices, indices) and torch.equal(merged.values, nearest)


def test_what_is_no_number_comes_first_by_index() -> None:
    values = torch.tensor([[0.5, torch.nan, 0.7, torch.nan, torch.nan]])
    lists = NearestLists.of(values, torch.arange(5)[None], 2)
    assert lists.indices.tolist() == [[1, 3]] and lists.values.isnan().all()


def features(images: int, texts: int) -> tuple[dict[int, Tensor], Tensor]:
    """Random features of images in batches of 8, 4 queries each, in 16 bits, and of texts."""
    generator = torch.Generator().manual_seed(0)
    seen = torch.nn.functional.normalize(torch.randn(images, 4, 6, generator=generator), dim=-1).half()
    read = torch.nn.functional.normalize(torch.randn(texts, 6, generator=generator), dim=-1)
    return {first: seen[first : first + 8] for first in range(0, images, 8)}, read


def test_blocks_hold_every_similarity_once(monkeypatch: pytest.MonkeyPatch) -> None:
    images, texts = features(43, 20)
    whole = torch.cat([image_text_similarity(part.float(), texts) for part in images.values()])
    for size in (1, 1000, 4 * 20 * 4 * 8, 10**6):  # the third: 8 images with their 4 queries
        monkeypatch.setattr(shortlist, "BLOCK_BYTES", size)
        blocks = list(similarity_blocks(dict(reversed(images.items())), texts))
        assert torch.cat([rows for rows, _ in blocks]).tolist() == list(range(43))
        torch.testing.assert_close(torch.cat([block for _, block in blocks]), whole, rtol=0, atol=1e-6)
        again = list(similarity_blocks(images, texts))
        assert all(torch.equal(a, b) for (_, a), (_, b) in zip(blocks, again, strict=True))
    assert len(blocks) == 1 and torch.equal(blocks[0][1], whole)
    assert list(similarity_blocks({}, texts)) == []


def most_alive(images: int, texts: int, k: int) -> int:
    """Bytes at most, while the lists are made."""
    seen, read = features(images, texts)
    with MostAlive() as alive:
        lists = Shortlists(k)
        for rows, block in similarity_blocks(seen, read):
            lists.add(rows, block)
        join([lists])
    return alive.most


@pytest.mark.slow
def test_memory_grows_with_images_and_with_texts_and_not_with_their_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortlist, "BLOCK_BYTES", 2**16)
    monkeypatch.setattr(shortlist, "_TEXTS_AT_ONCE", 64)
    few, many, k = most_alive(64, 1024, 4), most_alive(512, 1024, 4), 4
    lists = 12 * k * (512 - 64)  # of the images, 64-bit indices and 32-bit values
    assert many - few < 4 * lists < 4 * 512 * 1024 / 8, "lists of images, their copies in order, and no similarities"


def test_texts_of_like_length_come_together() -> None:
    lengths = torch.randint(2, 30, (100,), generator=torch.Generator().manual_seed(0))
    groups = list(length_batches(lengths, 16))
    assert torch.cat([rows for rows, _ in groups]).sort().values.tolist() == list(range(100))
    assert all(int(lengths[rows].max()) == longest for rows, longest in groups)
    padded = sum(len(rows) * longest for rows, longest in groups)
    assert padded < 1.15 * int(lengths.sum()) < 0.7 * 100 * 30
