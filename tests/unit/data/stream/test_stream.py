"""The global order, its cut into batches, and what happens to samples that cannot be used."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shard_files import encode, image, sample, write_shards, write_tar

from blip2_train.data.batches.transforms import CLIP_MEAN, CLIP_STD, TrainTransform
from blip2_train.data.sources.holdout import TrainingSource, choose_held_out, evenly_chosen
from blip2_train.data.sources.shard_source import ShardSource
from blip2_train.data.stream.batch_sampler import BatchShape, GlobalBatchSampler
from blip2_train.data.stream.stream import EvaluationItems, TrainingStream
from blip2_train.errors import ConfigError, ShardError

NOBODY = np.empty(0, dtype=np.int64)


def _mean(image: Image.Image, generator: torch.Generator) -> torch.Tensor:
    return torch.tensor(np.asarray(image).mean((0, 1)))


def _open(folder: Path, name: str = "s") -> ShardSource:
    return ShardSource(str(folder), name, folder / "index")


def _stream(source: ShardSource, seed: int = 0, held_out: np.ndarray = NOBODY, **options: object) -> TrainingStream:
    part = TrainingSource(source=source, weight=1, held_out=held_out)
    return TrainingStream([part], _mean, seed, **({"shuffle_block": 4, "shuffle_window": 16} | options))


def test_every_sample_once_per_epoch_and_epochs_differ(tmp_path: Path) -> None:
    stream = _stream(_open(write_shards(tmp_path, [7, 1, 12])))
    epochs = [[stream[position].sample_id for position in range(20 * epoch, 20 * epoch + 20)] for epoch in range(3)]
    for one, other in itertools.combinations(epochs, 2):
        assert len(set(one)) == 20 and set(one) == set(other) and one != other


def test_a_sample_is_a_function_of_seed_and_position(tmp_path: Path) -> None:
    source = _open(write_shards(tmp_path, [9, 9]))
    part = TrainingSource(source=source, weight=1, held_out=NOBODY)
    first, second, other = (TrainingStream([part], TrainTransform(12, CLIP_MEAN, CLIP_STD), seed) for seed in (5, 5, 6))
    backwards = {position: second[position] for position in reversed(range(30))}
    for position in range(30):
        assert torch.equal(first[position].pixel_values, backwards[position].pixel_values)
        assert first[position].sample_id == backwards[position].sample_id
    assert [first[p].sample_id for p in range(18)] != [other[p].sample_id for p in range(18)]


def test_crops_depend_on_seed_and_position(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8))
    write_tar(tmp_path / "0.tar", [("a.png", encode(noise, "PNG")), ("a.txt", "noise")])
    part = TrainingSource(source=_open(tmp_path), weight=1, held_out=NOBODY)
    first, second, other = (TrainingStream([part], TrainTransform(12, CLIP_MEAN, CLIP_STD), seed) for seed in (5, 5, 6))
    for position in range(5):
        assert torch.equal(first[position].pixel_values, second[position].pixel_values)
        assert not torch.equal(first[position].pixel_values, first[position + 1].pixel_values)
        assert not torch.equal(first[position].pixel_values, other[position].pixel_values)


def test_one_of_several_captions_is_drawn_each_time(tmp_path: Path) -> None:
    captions = '{"captions": ["zero", "one", "...", "three"]}'
    write_tar(tmp_path / "0.tar", [("a.jpg", image()), ("a.json", captions)])
    source = _open(tmp_path)
    drawn = Counter((item.caption, item.sample_id) for item in map(_stream(source).__getitem__, range(600)))
    assert set(drawn) == {("zero", "0/a#0"), ("one", "0/a#1"), ("three", "0/a#3")}
    assert min(drawn.values()) > 200 - 4 * 12
    part = TrainingSource(source=source, weight=1, held_out=NOBODY, first_captions=2)
    assert {TrainingStream([part], _mean, 0)[position].caption for position in range(40)} == {"zero", "one"}


@pytest.mark.slow
def test_sources_are_mixed_and_each_is_exact(tmp_path: Path) -> None:
    parts = [
        TrainingSource(source=_open(write_shards(tmp_path / name, [size]), name), weight=weight, held_out=NOBODY)
        for name, size, weight in (("big", 40, 3.0), ("small", 8, 1.0))
    ]
    stream = TrainingStream(parts, _mean, 1)
    counts = Counter(stream[position].image_id for position in range(1024))
    big = {parts[0].source.read(index).image_id for index in range(40)}
    visits = [
        sorted(count for image, count in counts.items() if (image in big) == expected) for expected in (True, False)
    ]
    assert sum(visits[0]) == 768 and set(visits[0]) == {19, 20}, "19.2 epochs"
    assert visits[1] == [32] * 8, "32 epochs"


def _broken(folder: Path) -> ShardSource:
    good = [member for index in range(12) for member in sample(f"good{index}")]
    bad = [("page.jpg", b"<html>"), ("page.txt", "x"), ("void.jpg", image()), ("void.txt", " ...")]
    bad += [("latin.jpg", image()), ("latin.txt", b"caf\xe9")]
    write_tar(folder / "0.tar", [*good, *bad])
    return _open(folder)


def test_unusable_samples_are_replaced_and_reported(tmp_path: Path) -> None:
    source = _broken(tmp_path)
    items = [_stream(source)[position] for position in range(15)]
    assert all("good" in item.sample_id for item in items)
    rejected = {(one.key, one.reason) for item in items for one in item.rejected}
    assert rejected == {("page", "unreadable image"), ("void", "empty caption"), ("latin", "text is not Unicode")}
    assert all(one.source == str(tmp_path / "0.tar") and one.detail for item in items for one in item.rejected)
    again = [_stream(source)[position] for position in range(15)]
    assert [item.sample_id for item in items] == [item.sample_id for item in again]
    assert len({item.sample_id for item in items if not item.rejected}) == 12


def test_captions_that_are_not_unicode_are_replaced_or_left_out_and_reported(tmp_path: Path) -> None:
    half, several = r'{"captions": ["a \ud83d cat"]}', r'{"captions": ["a cat", "a \ud83d dog"]}'
    members: list[tuple[str, bytes | str]] = [member for index in range(6) for member in sample(f"good{index}")]
    members += [("half.jpg", image()), ("half.json", half), ("some.jpg", image()), ("some.json", several)]
    write_tar(tmp_path / "0.tar", members)
    source = _open(tmp_path)
    items = [_stream(source)[position] for position in range(16)]
    assert all("half" not in item.sample_id for item in items)
    reasons = {(one.key, one.reason, one.detail) for item in items for one in item.rejected}
    assert reasons == {
        ("half", "text is not Unicode", r"'a \ud83d cat': it holds half a character"),
        ("some", "text is not Unicode", "caption 2 of 2 is left out"),
    }
    shown = [item for item in items if "some" in item.sample_id]
    assert {item.caption for item in shown} == {"a cat"} and shown[0].references == ("a cat", "a  dog")
    part = EvaluationItems([(source, np.arange(8))], _mean)
    assert [part[item].sample_id for item in (6, 7)] == ["0/some#0", "0/some#0"]
    assert [one.key for one in part[6].rejected] == ["half", "some"]


def test_a_source_without_a_readable_image_stops(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [("a.jpg", b"x"), ("a.txt", "words"), ("b.jpg", b"y"), ("b.txt", "words")])
    with pytest.raises(ShardError, match=r"50 samples in a row of source 's'.*unreadable image") as caught:
        _stream(_open(tmp_path))[0]
    assert "\n" not in str(caught.value)
    with pytest.raises(ShardError, match="2 samples in a row"):
        EvaluationItems([(_open(tmp_path), np.arange(2))], _mean)[0]


def test_shuffled_captions_belong_to_other_images(tmp_path: Path) -> None:
    source = _open(write_shards(tmp_path, [30]))
    right, wrong = _stream(source), _stream(source, shuffle_captions=True)
    for position in range(90):
        assert torch.equal(right[position].pixel_values, wrong[position].pixel_values)
        assert right[position].caption != wrong[position].caption
    shown = Counter(wrong[position].caption for position in range(90))
    assert len(shown) > 20, "captions of all samples are used"


def test_held_out_samples_are_never_trained_on(tmp_path: Path) -> None:
    source = _open(write_shards(tmp_path, [20, 20]))
    held_out = choose_held_out([40], 256)[0]
    assert len(held_out) == 4, "at most a tenth"
    items = EvaluationItems([(source, held_out)], _mean)
    kept = {items[item].image_id for item in range(len(items))}
    stream = _stream(source, held_out=held_out)
    trained = Counter(stream[position].image_id for position in range(72))
    assert len(kept) == 4 and not kept & set(trained) and set(trained.values()) == {2} and len(trained) == 36


def test_holding_out_of_several_sources() -> None:
    chosen = choose_held_out([1000, 10, 500], 100)
    assert sum(map(len, chosen)) == 100
    for indices, size in zip(chosen, [1000, 10, 500], strict=True):
        assert len(set(indices)) == len(indices) and ((indices >= 0) & (indices < size)).all()
    assert all(np.array_equal(a, b) for a, b in zip(chosen, choose_held_out([1000, 10, 500], 100), strict=True))
    assert [len(indices) for indices in choose_held_out([5], 100)] == [0]


def test_skipping_what_is_held_out_gives_every_other_index() -> None:
    class Ten:
        def __len__(self) -> int:
            return 10

    for held_out in itertools.chain.from_iterable(itertools.combinations(range(10), count) for count in (0, 1, 2, 5)):
        part = TrainingSource(source=Ten(), weight=1, held_out=np.array(held_out, dtype=np.int64))  # type: ignore[arg-type]
        assert [part.sample_index(kept_index) for kept_index in range(len(part))] == [
            n for n in range(10) if n not in held_out
        ]


def test_evaluation_items_are_all_captions_of_each_image(tmp_path: Path) -> None:
    captions = '{"captions": ["zero", "one"]}'
    members = [(f"{key}.{end}", data) for key in "abc" for end, data in (("jpg", image()), ("json", captions))]
    write_tar(tmp_path / "0.tar", members)
    items = EvaluationItems([(_open(tmp_path), evenly_chosen(3, None))], _mean, captions_per_image=2)
    assert [items[item].sample_id for item in range(len(items))] == [f"0/{key}#{n}" for key in "abc" for n in (0, 1)]
    assert list(evenly_chosen(10, 3)) == list(evenly_chosen(10, 3)) and len(set(evenly_chosen(10, 3))) == 3


def test_an_unusable_evaluation_item_is_replaced_by_the_next(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [*sample("a"), ("b.jpg", b"x"), ("b.txt", "words"), *sample("c")])
    items = EvaluationItems([(_open(tmp_path), np.arange(3))], _mean)
    assert [items[item].sample_id for item in range(3)] == ["0/a#0", "0/c#0", "0/c#0"]
    assert [one.key for one in items[1].rejected] == ["b"]


def _positions(world: int, accumulate: int, first_step: int = 0, size: int = 24, steps: int = 5) -> list[list[int]]:
    """Sorted positions of each global batch."""
    shape = BatchShape(global_batch_size=size, world_size=world, accumulate=accumulate)
    ranks = [list(GlobalBatchSampler(shape, rank, steps, first_step)) for rank in range(world)]
    assert len({len(batches) for batches in ranks}) == 1, "equal steps on every rank"
    assert {len(batch) for batches in ranks for batch in batches} == {shape.micro_batch_size}
    per_step = [list(itertools.chain(*batches)) for batches in zip(*ranks, strict=True)]
    return [
        sorted(itertools.chain(*per_step[start : start + accumulate])) for start in range(0, len(per_step), accumulate)
    ]


@pytest.mark.parametrize(("world", "accumulate"), [(1, 1), (2, 1), (1, 3), (2, 2), (3, 4), (8, 1)])
def test_a_global_batch_is_the_same_on_any_hardware(world: int, accumulate: int) -> None:
    assert _positions(world, accumulate) == [list(range(24 * step, 24 * step + 24)) for step in range(5)]
    assert _positions(world, accumulate, first_step=3) == _positions(1, 1)[3:]


def test_the_length_is_that_of_the_whole_run() -> None:
    shape = BatchShape(global_batch_size=8, world_size=2, accumulate=2)
    assert len(GlobalBatchSampler(shape, 0, steps=10)) == len(GlobalBatchSampler(shape, 1, 10, first_step=7)) == 20


@pytest.mark.parametrize(
    ("size", "world", "accumulate", "advice"),
    [(100, 8, 1, "use 96 or 104"), (3, 8, 1, "use 8"), (10, 2, 2, "use 8 or 12")],
)
def test_an_indivisible_batch_names_the_nearest(size: int, world: int, accumulate: int, advice: str) -> None:
    with pytest.raises(ConfigError, match=f"{size} cannot be divided among {world} processes.*{advice}"):
        BatchShape(global_batch_size=size, world_size=world, accumulate=accumulate)
