import math

import pytest
import torch
from torch.nn import functional as F

from blip2_train.objectives.contrastive import contrastive_loss, contrastive_targets, image_text_similarity


def test_best_query_wins() -> None:
    torch.manual_seed(0)
    images, texts = torch.randn(3, 4, 5), torch.randn(6, 5)
    slow = torch.stack([torch.stack([(image @ text).max() for text in texts]) for image in images])
    torch.testing.assert_close(image_text_similarity(images, texts), slow)


def test_feature_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match="size 5"):
        image_text_similarity(torch.randn(1, 2, 5), torch.randn(1, 4))


def test_without_repeats_the_loss_is_label_smoothing() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 3, 9).unbind()
    labels = torch.arange(3) + 3
    expected = (F.cross_entropy(a, labels, label_smoothing=0.1) + F.cross_entropy(b, labels, label_smoothing=0.1)) / 2
    torch.testing.assert_close(contrastive_loss(a, b, contrastive_targets(torch.eye(9)[3:6] > 0, 0.1)), expected)


def test_samples_of_one_image_share_the_target() -> None:
    same = torch.tensor([[True, True, False, False]])
    targets = contrastive_targets(same, 0.1)
    torch.testing.assert_close(targets, torch.tensor([[0.475, 0.475, 0.025, 0.025]]))


def test_chance_is_ln_n() -> None:
    flat = torch.zeros(2, 8)
    assert contrastive_loss(flat, flat, contrastive_targets(torch.eye(8)[:2] > 0, 0.1)).item() == pytest.approx(
        math.log(8)
    )
