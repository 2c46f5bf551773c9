import subprocess
import sys
from pathlib import Path

import pytest
import torch

from blip2_train.evaluation.metrics.recall import chance_recall, retrieval_recall


def slow_recall(scores: list[list[float]], image_of_text: list[int], k: int) -> tuple[float, float]:
    """By looking at every pair; a wrong answer with the score of a right one stands before it."""
    image_hits = text_hits = 0
    for image, row in enumerate(scores):
        positions = []
        for text, score in enumerate(row):
            if image_of_text[text] == image:
                positions.append(sum(row[other] >= score for other, of in enumerate(image_of_text) if of != image))
        image_hits += min(positions) < k
    for text, image in enumerate(image_of_text):
        right = scores[image][text]
        text_hits += sum(scores[other][text] >= right for other in range(len(scores)) if other != image) < k
    return 100 * image_hits / len(scores), 100 * text_hits / len(image_of_text)


def test_chance_is_what_random_scores_reach_on_average() -> None:
    texts_of_images, generator = [1, 3, 2, 5, 1], torch.Generator().manual_seed(0)
    image_of_text = torch.tensor([image for image, count in enumerate(texts_of_images) for _ in range(count)])
    draws = [retrieval_recall(torch.rand(5, 12, generator=generator), image_of_text, (1, 2, 7)) for _ in range(3000)]
    levels = chance_recall(texts_of_images, (1, 2, 7))
    assert levels["text_to_image_r7"] == 100 and levels["text_to_image_r1"] == 20
    assert {name: sum(draw[name] for draw in draws) / 3000 for name in levels} == pytest.approx(levels, abs=1.5)
    assert chance_recall([1, 1], (5,)) == {"image_to_text_r5": 100.0, "text_to_image_r5": 100.0}


@pytest.mark.slow
@pytest.mark.parametrize("levels", [None, 40, 5, 2], ids=["no ties", "some ties", "many ties", "two values"])
@pytest.mark.parametrize(("images", "texts"), [(1, 1), (12, 12), (23, 80), (300, 700)])
def test_equals_brute_force(images: int, texts: int, levels: int | None) -> None:
    """Each image has one or more texts, in no order; 300 images are more than one block."""
    generator = torch.Generator().manual_seed(images)
    more = torch.randint(images, (texts - images,), generator=generator)
    image_of_text = torch.cat([torch.arange(images), more])[torch.randperm(texts, generator=generator)]
    similarity = torch.randn(images, texts, generator=generator)
    similarity[image_of_text, torch.arange(texts)] += 1.0
    if levels is not None:
        similarity = (similarity * levels / 8).round()
        assert images == 1 or len(similarity.unique()) < similarity.numel()
    scores = retrieval_recall(similarity, image_of_text, ks=(1, 5, 10))
    for k in (1, 5, 10):
        recall = scores[f"image_to_text_r{k}"], scores[f"text_to_image_r{k}"]
        assert recall == pytest.approx(slow_recall(similarity.tolist(), image_of_text.tolist(), k), abs=1e-9)
    if images >= 23:
        assert 0 < scores["text_to_image_r5"] < 100


def test_a_constant_score_finds_nothing() -> None:
    assert set(retrieval_recall(torch.zeros(20, 20), torch.arange(20)).values()) == {0.0}


def test_a_score_that_is_no_number_finds_nothing() -> None:
    assert set(retrieval_recall(torch.full((20, 20), torch.nan), torch.arange(20)).values()) == {0.0}
    similarity = torch.eye(20)
    similarity[3, 4] = torch.nan  # a wrong pair: it spoils R@1 of its image and its text only
    scores = retrieval_recall(similarity, torch.arange(20), ks=(1, 5))
    assert set(scores.values()) == {95.0, 100.0} and scores["image_to_text_r1"] == 95.0


def test_pairs_that_were_not_scored_do_not_count() -> None:
    similarity = torch.full((20, 40), -torch.inf)
    similarity[:10, :20] = torch.eye(10).repeat_interleave(2, dim=1)
    scores = retrieval_recall(similarity, torch.arange(20).repeat_interleave(2), ks=(1,))
    assert scores == {"image_to_text_r1": 50.0, "text_to_image_r1": 50.0}


@pytest.mark.parametrize("image_of_text", [torch.arange(19), torch.full((20,), 20), torch.full((20,), -1)])
def test_shapes_must_belong_together(image_of_text: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="20 x 20"):
        retrieval_recall(torch.zeros(20, 20), image_of_text)


COCO = """
import resource, torch
from blip2_train.evaluation.metrics.recall import retrieval_recall
similarity = torch.zeros(5000, 25010)
similarity[torch.arange(25010) % 5000, torch.arange(25010)] = 1
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
scores = retrieval_recall(similarity, torch.arange(25010) % 5000)
assert set(scores.values()) == {100.0}, scores
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
@pytest.mark.slow
def test_memory_at_the_size_of_coco(root: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", COCO], cwd=root, capture_output=True, text=True, check=True, timeout=200
    )
    assert float(ran.stdout) < 150, "MiB beside the 477 MiB of the scores"
