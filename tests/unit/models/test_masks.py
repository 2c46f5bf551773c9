import torch

from blip2_train.models import masks

PADDED = torch.tensor([[True, True, False]])


def test_unimodal_hides_padding_only() -> None:
    assert masks.unimodal(PADDED).tolist() == [[[[True, True, False]]]]


def test_bidirectional_shows_queries_and_real_tokens() -> None:
    assert masks.bidirectional(PADDED, 2).tolist() == [[[[True, True, True, True, False]]]]


def test_multimodal_causal_shows_queries_and_the_past() -> None:
    rows = masks.multimodal_causal(PADDED, 1)[0, 0].int().tolist()
    assert rows == [[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0]]
