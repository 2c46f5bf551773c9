"""Searching an index: exact lists against a plain computation, FAISS against those, and what a file is refused for."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from demo_exports import write_exports
from PIL import Image
from torch.nn import functional as F

from blip2_train.errors import Blip2TrainError, CheckpointMismatch, ConfigError, DamagedFile, ShardError
from blip2_train.evaluation.inference import Blip2
from blip2_train.evaluation.search.feature_file import FeatureFile
from blip2_train.evaluation.search.index import SearchIndex, read_index
from blip2_train.evaluation.search.index_record import model_fingerprint
from blip2_train.evaluation.search.nearest import ExactNearest, FaissNearest
from blip2_train.evaluation.search.searcher import Searcher
from blip2_train.evaluation.shortlist import BLOCK_BYTES
from blip2_train.objectives.contrastive import image_text_similarity
from blip2_train.pretrained import load_pretrained

TEXTS = ["a red bus", "two dogs", "a green apple on the left"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_exports(tmp_path_factory.mktemp("exports"))


@pytest.fixture(scope="module")
def model(sources: dict[str, str]) -> Blip2:
    return load_pretrained(sources["stage1"])[0]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder, draw = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(draw.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return [str(folder / f"{number}.png") for number in range(6)]


@pytest.fixture(scope="module")
def index(model: Blip2, paths: list[str]) -> SearchIndex:
    return SearchIndex.of_images(model, paths, paths, batch_size=4)


def unit(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape), dim=-1)


def mean_of_queries(images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Mean over the queries of the cosine of one query's features of two images, pair by pair."""
    return torch.stack([torch.stack([(a * b).sum(dim=1).mean() for b in images]) for a in others])


PAIRS: dict[str, tuple[torch.Tensor, torch.Tensor, Callable[..., torch.Tensor]]] = {}
with torch.random.fork_rng():
    torch.manual_seed(1)
    IMAGES, WORDS = unit(40, 4, 8), unit(40, 8)
    PAIRS = {
        "images by text": (IMAGES, unit(5, 8), lambda index, queried: image_text_similarity(index, queried).T),
        "texts by image": (WORDS, unit(5, 4, 8), lambda index, queried: image_text_similarity(queried, index)),
        "images by image": (IMAGES, unit(5, 4, 8), mean_of_queries),
        "texts by text": (WORDS, unit(5, 8), lambda index, queried: queried @ index.T),
    }


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("block", [BLOCK_BYTES, 500])
def test_exact_lists_are_those_of_a_plain_sort(kind: str, block: int) -> None:
    index, queried, similarity = PAIRS[kind]
    values, indices = similarity(index, queried).sort(dim=1, descending=True)
    lists = ExactNearest(index, block)(queried, 7)
    assert lists.indices.tolist() == indices[:, :7].tolist()
    torch.testing.assert_close(lists.values, values[:, :7])
    assert ExactNearest(index)(queried, 100).indices.shape == (5, 40)


@pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="faiss is not installed (extra search)")
@pytest.mark.parametrize("kind", PAIRS)
def test_faiss_flat_gives_the_same_lists(kind: str) -> None:
    index, queried, _ = PAIRS[kind]
    exact, flat = ExactNearest(index)(queried, 7), FaissNearest(index, "Flat")(queried, 7)
    assert exact.indices.tolist() == flat.indices.tolist()
    torch.testing.assert_close(exact.values, flat.values)
    approximate = FaissNearest(index, "HNSW8")(queried, 7)
    shared = [len({*a} & {*b}) for a, b in zip(exact.indices.tolist(), approximate.indices.tolist(), strict=True)]
    assert sum(shared) > 17  # of 35
    for factory in ("Nonsense", "IVF4096,Flat"):
        with pytest.raises(ConfigError, match=f"--faiss {factory}: FAISS cannot build it for"):
            FaissNearest(index, factory)(queried, 7)


def test_images_that_cannot_be_read_are_left_out_of_an_index_if_they_are_collected(
    model: Blip2, index: SearchIndex, paths: list[str], tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    some, broken = [*paths[:3], str(tmp_path / "broken.png"), *paths[3:]], list[ShardError]()
    made = SearchIndex.of_images(model, some, some, batch_size=4, broken=broken)
    assert list(made.names) == paths and torch.allclose(made.features, index.features, atol=1e-5)
    (error,) = broken
    assert "broken.png is no image" in str(error)
    for collected in (None, []):
        with pytest.raises(ShardError, match=r"broken\.png is no image"):
            SearchIndex.of_images(model, some[3:4], some[3:4], broken=collected)


@pytest.mark.slow
def test_images_are_retrieved_by_text_and_ranked_again_by_matching(
    model: Blip2, index: SearchIndex, paths: list[str]
) -> None:
    scores = model.match(paths, TEXTS)
    plain = Searcher(model, index).by_texts(TEXTS, 3)
    ranked = Searcher(model, index).by_texts(TEXTS, 2, rerank=6)
    for number, hits in enumerate(plain):
        values, order = scores.itc[:, number].sort(descending=True)
        assert [hit.name for hit in hits] == [paths[row] for row in order[:3]] and hits[0].itm is None
        assert [hit.similarity for hit in hits] == pytest.approx(values[:3].tolist(), abs=1e-5)
        values, order = scores.itm[:, number].sort(descending=True)
        assert [hit.row for hit in ranked[number]] == order[:2].tolist()
        assert [hit.itm for hit in ranked[number]] == pytest.approx(values[:2].tolist(), abs=1e-5)
    read: list[str] = []
    Searcher(model, index, image_of=lambda name: read.append(name) or name).by_texts("a red bus", 1, rerank=3)
    assert read == [hit.name for hit in plain[0]]


def test_texts_are_retrieved_by_image(model: Blip2, paths: list[str]) -> None:
    scores = model.match(paths, TEXTS)
    searcher = Searcher(model, SearchIndex.of_texts(model, TEXTS))
    for number, hits in enumerate(searcher.by_images(paths, 3)):
        assert [hit.name for hit in hits] == [TEXTS[row] for row in scores.itc[number].argsort(descending=True)]
    (hits,) = searcher.by_images(paths[0], 1, rerank=3)
    assert (hits[0].row, hits[0].itm) == (
        int(scores.itm[0].argmax()),
        pytest.approx(float(scores.itm[0].max()), abs=1e-5),
    )
    assert searcher.by_texts("two dogs", 1)[0][0].name == "two dogs"


def test_an_image_is_nearest_to_itself(model: Blip2, index: SearchIndex, paths: list[str]) -> None:
    nearest = Searcher(model, index).by_images(paths, 1)
    assert [hits[0].row for hits in nearest] == list(range(6))
    assert all(hits[0].similarity == pytest.approx(1, abs=1e-5) for hits in nearest)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_an_index_is_read_as_it_was_written_and_every_flipped_byte_is_seen(
    index: SearchIndex, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"index{suffix}"
    index.write(path)
    read = read_index(path)
    assert (read.kind, list(read.names), read.model, read.source) == ("image", index.names, index.model, index.source)
    assert torch.equal(read.features, index.features)
    content = path.read_bytes()
    for offset in range(0, len(content), len(content) // 40):
        changed = bytearray(content)
        changed[offset] ^= 255
        path.write_bytes(changed)
        try:
            again = read_index(path)
        except Blip2TrainError as error:
            assert "\n" not in str(error) and len(str(error)) < 400
        else:  # a byte that nothing reads: a date in the archive, for instance
            assert torch.equal(again.features, index.features) and list(again.names) == index.names
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DamagedFile, match=r"cannot be read \("):
        read_index(path)


def written(path: Path, record: dict[str, Any] | str | None, **arrays: Any) -> Path:
    """An `.npz` made by somebody else."""
    text = {} if record is None else {"index": np.array(record if isinstance(record, str) else json.dumps(record))}
    np.savez(path, **text, **arrays)
    return path


RECORD = {"model": "", "source": "", "sha256": {}, "version": 1}


@pytest.mark.parametrize(
    ("record", "arrays", "words"),
    [
        (None, {"image_features": np.zeros((1, 2, 3))}, "does not say which model computed it; write it again"),
        ("[1, 2]", {"image_features": np.zeros((1, 2, 3))}, "cannot be read"),
        ({}, {"image_features": np.zeros((1, 2, 3))}, "cannot be read .*model"),
        (
            RECORD,
            {"soft_prompt": np.zeros((1, 2, 3)), "image": np.array(["a"])},
            "of a generative model .image, soft_p",
        ),
        (RECORD, {"image_features": np.zeros((1, 2, 3)), "image": np.array(["a"])}, "SHA-256 differs"),
        (RECORD, {"image_features": np.array([{"a": 1}], object), "image": np.array(["a"])}, "allow_pickle=False"),
        (RECORD, {"image_features": np.zeros((1, 2, 3))}, "cannot be read .*image"),
    ],
    ids=["no record", "list", "empty", "generative", "changed", "objects", "no names"],
)
def test_what_is_no_index_is_one_line(
    tmp_path: Path, record: dict[str, Any] | str | None, arrays: dict[str, Any], words: str
) -> None:
    with pytest.raises(Blip2TrainError, match=words) as caught:
        read_index(written(tmp_path / "x.npz", record, **arrays))
    assert len(str(caught.value).splitlines()) == 1


def test_shapes_that_fit_no_names_are_one_line(tmp_path: Path) -> None:
    with FeatureFile(tmp_path / "x.npz") as file:
        file.add({"image_features": torch.zeros(2, 3)}, {"image": ["a", "b"]})
    with pytest.raises(DamagedFile, match=r"holds image_features of shape \(2, 3\) for 2 rows"):
        read_index(tmp_path / "x.npz")
    for name, words in (("gone.npz", "there is no index"), ("x.csv", "is neither .npz nor .safetensors")):
        with pytest.raises(ConfigError, match=words):
            read_index(tmp_path / name)


def test_an_index_of_another_model_is_refused(sources: dict[str, str], model: Blip2, index: SearchIndex) -> None:
    other, _ = load_pretrained(sources["stage1"])
    assert model_fingerprint(other) == index.model
    half, _ = load_pretrained(sources["stage1"], dtype="bfloat16")
    assert model_fingerprint(half) == index.model
    with torch.no_grad():
        other.network.vision_model.tower.pos_embed[0, 0, 0] += 1
    with pytest.raises(CheckpointMismatch, match=r"index was computed by .*stage1.*, with other weights") as caught:
        Searcher(other, index)
    assert len(str(caught.value).splitlines()) == 1
    generative, _ = load_pretrained(sources["opt"])
    with pytest.raises(ConfigError, match="search needs an image-text model"):
        Searcher(generative, index)


def test_searches_that_cannot_be_done(model: Blip2, index: SearchIndex, tmp_path: Path) -> None:
    searcher = Searcher(model, index)
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        searcher.by_texts("a cat", 0)
    with pytest.raises(ConfigError, match="shortlist of 2 to re-rank is shorter than the 3 results"):
        searcher.by_texts("a cat", 3, rerank=2)
    with pytest.raises(ConfigError, match="the index is of images and searched by images"):
        searcher.by_images(index.names[0], 3, rerank=3)
    names = ["https://example.org/a.jpg?…0123abcd", *index.names[1:]]
    masked = Searcher(model, dataclasses.replace(index, names=names))
    assert masked.by_texts("a cat", 6)[0][0].itm is None
    with pytest.raises(
        ShardError, match=r"names keep no keys of addresses, and https://example\.org/a\.jpg\?…0123abcd"
    ):
        masked.by_texts("a cat", 1, rerank=6)
    moved = Searcher(model, index, image_of=lambda name: tmp_path / "gone.png")
    with pytest.raises(ShardError, match=r"re-ranking reads the images of the index again: .*gone"):
        moved.by_texts("a cat", 1, rerank=2)
