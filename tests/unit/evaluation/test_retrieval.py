"""Retrieval by a shortlist that is ranked again, against loops over all pairs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import image_text_model
from torch import Tensor

from blip2_train.data.annotations.annotated_images import AnnotatedImage
from blip2_train.data.batches.processor import Processor
from blip2_train.data.batches.qformer_tokenizer import load_qformer_tokenizer
from blip2_train.data.batches.transforms import CLIP_MEAN, CLIP_STD
from blip2_train.errors import ConfigError
from blip2_train.evaluation.inference import Blip2
from blip2_train.evaluation.retrieval import Rerank, RetrievalTask
from blip2_train.evaluation.run_task import run_task
from blip2_train.evaluation.shortlist import NearestLists, Shortlists, join

BERT = str(Path(__file__).parents[3] / "blip2_train/assets/demo/bert")
WORDS = "a cat dog apple car on red blue green ground two three fish and with some".split()


@pytest.fixture(scope="module")
def model() -> Blip2:
    tokenizer = load_qformer_tokenizer(BERT)
    network = image_text_model(vocab_size=len(tokenizer))
    return Blip2(
        network, Processor(mean=CLIP_MEAN, std=CLIP_STD, image_size=32, max_text_length=12, text_tokenizer=tokenizer)
    )


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[AnnotatedImage], Path]:
    """Eleven images with one to three texts of unequal length each; two texts are the same."""
    folder, generator = tmp_path_factory.mktemp("images"), torch.Generator().manual_seed(3)
    images = []
    for number in range(11):
        pixels = torch.randint(0, 256, (40, 40, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
        texts = [
            " ".join(WORDS[i] for i in torch.randint(len(WORDS), (2 + number % 7,), generator=generator))
            for _ in range(1 + number % 3)
        ]
        images.append(AnnotatedImage(image_id=100 + number, path=f"{number}.png", captions=tuple(texts)))
    images[7] = AnnotatedImage(image_id=107, path="7.png", captions=images[2].captions[:1])
    return images, folder


def all_scores(model: Blip2, annotated: list[AnnotatedImage], folder: Path) -> tuple[Tensor, Tensor]:
    """Contrast of every pair, and both its matching logits, one pair at a time, features in 16 bits."""
    texts = [text for image in annotated for text in image.captions]
    itc, itm = torch.empty(len(annotated), len(texts)), torch.empty(len(annotated), len(texts), 2)
    with torch.inference_mode():
        for i, image in enumerate(annotated):
            images = model.network.encode_image(model.processor.images([folder / image.path]))
            image_kv = model.network.project_image(images.patch_features.half().float())
            for j, text in enumerate(texts):
                ids, mask = model.processor.texts([text])
                feature = model.network.encode_text(ids, mask).half().float()[0]
                itc[i, j] = (images.image_features.half().float()[0] @ feature).max()
                itm[i, j] = model.network.match([image_kv], ids, mask)[0]
    return itc, itm


def recall(order: list[list[int]], right: list[set[int]], k: int) -> float:
    return 100 * sum(bool(right[row] & set(ranked[:k])) for row, ranked in enumerate(order)) / len(order)


def expected_scores(first: Tensor, second: Tensor, texts_of: list[set[int]], k: int, name: str) -> dict[str, float]:
    """Recall when the k best by `first` are ranked again by `second`, the rest following; wrong ones first in ties."""
    orders = []
    for row in range(len(first)):
        wrong_first = sorted(range(first.shape[1]), key=lambda c: c in texts_of[row])
        by_first = sorted(wrong_first, key=lambda c: -first[row, c].item())
        listed = sorted(range(first.shape[1]), key=lambda c: (-first[row, c].item(), c))[:k]
        again = sorted(sorted(listed, key=lambda c: c in texts_of[row]), key=lambda c: -second[row, c].item())
        orders.append(again + [c for c in by_first if c not in listed])
    return {f"{name}_r{cut}": recall(orders, texts_of, cut) for cut in (1, 5, 10)}


@pytest.mark.slow
@pytest.mark.parametrize(("k", "rerank"), [(1, "released"), (3, "released"), (10, "log_odds"), (50, "released")])
def test_it_equals_a_loop_over_all_pairs(
    model: Blip2,
    annotated: tuple[list[AnnotatedImage], Path],
    k: int,
    rerank: Rerank,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("retrieval.PAIRS_AT_ONCE", "retrieval.TEXTS_AT_ONCE"):
        monkeypatch.setattr(f"blip2_train.evaluation.{name}", 4)
    described, folder = annotated
    task = RetrievalTask("set", "Set", described, folder, shortlist=k, max_text_length=12, batch_size=4, rerank=rerank)
    shown: list[tuple[str, int, int]] = []
    rows, scored = run_task(model, task, tmp_path, {}, lambda *progress: shown.append(progress))
    assert [name for name, done, of in shown if done == of] == ["set: encoding", "set"]
    assert task.chance().keys() == scored.scores.keys() and 0 < task.chance()["recall_mean"] < 100
    itc, itm = all_scores(model, described, folder)
    counts = [len(image.captions) for image in described]
    texts_of = [set(range(sum(counts[:i]), sum(counts[: i + 1]))) for i in range(len(counts))]
    image_of = [{i} for i, count in enumerate(counts) for _ in range(count)]
    final = itm[..., 1] + itc
    if rerank == "log_odds":
        final = itm[..., 1] - itm[..., 0] + itc / model.network.temperature.item()
    expected = expected_scores(itc, final, texts_of, k, "image_to_text")
    expected |= expected_scores(itc.T, final.T, image_of, k, "text_to_image")
    before = expected_scores(itc, itc, texts_of, 1, "itc/image_to_text")
    before |= expected_scores(itc.T, itc.T, image_of, 1, "itc/text_to_image")
    assert {name: scored.scores[name] for name in expected} == pytest.approx(expected)
    assert {name: scored.scores[name] for name in before} == pytest.approx(before)
    assert scored.scores["recall_mean"] == pytest.approx(sum(expected.values()) / 6)
    for row in rows:
        assert len(row["image_to_text"]) == min(k, len(image_of))
        for text, score in row["image_to_text"] + row["text_to_image"]:
            assert score == pytest.approx(final[row["image"], text].item(), abs=1e-4)


def test_lists_do_not_depend_on_the_split_of_images() -> None:
    similarity = torch.randint(0, 4, (12, 9), generator=torch.Generator().manual_seed(0)).float()  # many ties
    whole, first, second = Shortlists(5), Shortlists(5), Shortlists(5)
    whole.add(torch.arange(12), similarity)
    for part, start in ((second, 8), (first, 0), (second, 4)):
        part.add(torch.arange(start, start + 4), similarity[start : start + 4])
    of_images, of_texts = join([whole])
    for lists, expected in zip(join([first, second]), (of_images, of_texts), strict=True):
        assert torch.equal(lists.indices, expected.indices) and torch.equal(lists.values, expected.values)
    for text in range(9):
        best = sorted(range(12), key=lambda image: (-similarity[image, text].item(), image))[:5]
        assert of_texts.indices[text].tolist() == best
    inverted = of_texts.inverted(12)
    assert [texts.tolist() for texts, _ in inverted] == [
        [text for text in range(9) if image in of_texts.indices[text]] for image in range(12)
    ]
    assert all(torch.equal(values, similarity[image, texts]) for image, (texts, values) in enumerate(inverted))
    assert isinstance(of_texts, NearestLists)


def test_what_cannot_be_done(annotated: tuple[list[AnnotatedImage], Path]) -> None:
    described, folder = annotated
    with pytest.raises(ConfigError, match="shortlist must be at least 1, got 0"):
        RetrievalTask("set", "Set", described, folder, shortlist=0)
    with pytest.raises(ConfigError, match="task set: rerank is 'sum'; use released or log_odds"):
        RetrievalTask("set", "Set", described, folder, rerank="sum")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="image 5 has no captions to be found by"):
        RetrievalTask("set", "Set", [AnnotatedImage(image_id=5, path="", captions=())], folder)


def test_captions_with_half_a_character_are_searched_without_it(model: Blip2, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    broken, whole = (
        RetrievalTask("r", "R", [AnnotatedImage(image_id=0, path="0.png", captions=(text,))], tmp_path)
        for text in ("a cat \ud83d", "a cat")
    )
    broken.start(model)
    whole.start(model)
    assert torch.equal(broken._ids, whole._ids)
    assert broken.settings()["data"] != whole.settings()["data"]
