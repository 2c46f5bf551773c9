import pytest
import torch

from blip2_train.evaluation.recall import retrieval_recall


def slow_recall(similarity: torch.Tensor, image_of_text: torch.Tensor, k: int) -> tuple[float, float]:
    images, texts = similarity.shape
    found_texts = sum(
        any(int(image_of_text[t]) == i for t in similarity[i].argsort(descending=True)[:k].tolist())
        for i in range(images)
    )
    found_images = sum(
        int(image_of_text[t]) in similarity[:, t].argsort(descending=True)[:k].tolist() for t in range(texts)
    )
    return 100 * found_texts / images, 100 * found_images / texts


@pytest.mark.parametrize("per_image", [1, 3])
def test_equals_a_slow_ranking(per_image: int) -> None:
    torch.manual_seed(0)
    image_of_text = torch.arange(12).repeat_interleave(per_image)
    similarity = torch.randn(12, 12 * per_image)
    scores = retrieval_recall(similarity, image_of_text, ks=(1, 5))
    for k in (1, 5):
        assert (scores[f"image_to_text_r{k}"], scores[f"text_to_image_r{k}"]) == pytest.approx(
            slow_recall(similarity, image_of_text, k)
        )


def test_a_constant_score_finds_nothing() -> None:
    assert set(retrieval_recall(torch.zeros(20, 20), torch.arange(20)).values()) == {0.0}


def test_shapes_must_belong_together() -> None:
    with pytest.raises(ValueError, match="20 x 19"):
        retrieval_recall(torch.zeros(20, 19), torch.arange(20))
