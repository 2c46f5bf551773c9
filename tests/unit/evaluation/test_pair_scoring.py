"""Scores of images with their own texts: those of all pairs, at the right places; CLIP's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from demo_exports import write_exports
from PIL import Image
from tiny_clip import tiny_clip
from transformers import CLIPModel, CLIPProcessor

from blip2_train.errors import CheckpointMismatch, ConfigError
from blip2_train.evaluation.pair_scoring import ClipScorer, MatchScorer
from blip2_train.pretrained import load_pretrained

TEXTS = [["a cat", "two dogs on red"], ["a fox"], ["a very long line of many words here", "a cat", "an owl"]]


def images() -> list[Image.Image]:
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 256, (30, 40, 3), dtype=np.uint8)) for _ in TEXTS]


@pytest.mark.slow
def test_scores_of_own_texts_are_those_of_all_pairs(tmp_path: Path) -> None:
    exports = write_exports(tmp_path)
    model, _ = load_pretrained(exports["stage1"], device="cpu")
    scores = model.match(images(), [text for some in TEXTS for text in some])
    own = [(0, 0), (0, 1), (1, 2), (2, 3), (2, 4), (2, 5)]
    itc = MatchScorer(model, "itc")(images(), TEXTS)
    itm = MatchScorer(model, "itm")(images(), TEXTS)
    assert [len(some) for some in itc] == [len(some) for some in itm] == [2, 1, 3]
    assert [s for some in itc for s in some] == pytest.approx([scores.itc[pair].item() for pair in own], abs=1e-5)
    chances = torch.sigmoid(torch.tensor([s for some in itm for s in some])).tolist()
    assert chances == pytest.approx([scores.itm[pair].item() for pair in own], abs=1e-5)
    with pytest.raises(ConfigError, match=r"scores need an image-text model \(stage 1\)"):
        MatchScorer(load_pretrained(exports["opt"], device="cpu")[0])


def test_clip(tmp_path: Path) -> None:
    scorer = ClipScorer(tiny_clip(tmp_path / "clip"), torch.device("cpu"))
    all_scores = scorer(images(), TEXTS)
    model, processor = CLIPModel.from_pretrained(tmp_path / "clip"), CLIPProcessor.from_pretrained(tmp_path / "clip")
    for image, texts, scores in zip(images(), TEXTS, all_scores, strict=True):
        for text, score in zip(texts, scores, strict=True):
            read = processor(text=[text[:18]], images=[image], return_tensors="pt", truncation=True)
            logit = model(**read).logits_per_image.item() / model.logit_scale.exp().item()
            if len(text) <= 18:
                assert score == pytest.approx(logit, abs=1e-5)
            assert -1 <= score <= 1
    assert len({score for some in all_scores for score in some}) == 6
    with pytest.raises(CheckpointMismatch, match="is no CLIP model"):
        ClipScorer(tmp_path, torch.device("cpu"))
