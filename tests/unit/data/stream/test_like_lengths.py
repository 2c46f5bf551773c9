"""Batches of texts of like length: each sample once, the same on any hardware, and hardly any padding."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from shard_files import write_shards, write_tokenizer

from blip2_train import distributed
from blip2_train.data.batches.collate import load_image_text_collator
from blip2_train.data.batches.generation_collate import load_decoder_only_collator, load_encoder_decoder_collator
from blip2_train.data.batches.transforms import CLIP_MEAN, CLIP_STD
from blip2_train.data.emoji_scenes.layout import WorldPaths
from blip2_train.data.emoji_scenes.scene_source import SceneSourceConfig, prepare_scenes
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.sources.config import SourceConfig
from blip2_train.data.sources.holdout import TrainingSource
from blip2_train.data.stream.batch_sampler import BatchShape
from blip2_train.data.stream.like_lengths import LikeLengthSampler, check_texts
from blip2_train.errors import CheckpointMismatch, ConfigError, ShardError
from blip2_train.training.data_module import ImageTextDataModule

LENGTHS = torch.randint(3, 32, (4000,), generator=torch.Generator().manual_seed(0)).tolist()
OPT = str(resources.files("blip2_train") / "assets" / "demo" / "opt")
T5 = str(resources.files("blip2_train") / "assets" / "demo" / "t5")


def _lengths(positions: Sequence[int]) -> list[int]:
    return [LENGTHS[position] for position in positions]


def _sampler(shape: BatchShape, rank: int = 0, steps: int = 12, first: int = 0, window: int = 4) -> LikeLengthSampler:
    return LikeLengthSampler(shape, rank, steps, first, window=window, seed=7, lengths=_lengths)


def test_a_window_holds_its_samples_once_in_batches_of_like_length() -> None:
    batches = list(_sampler(BatchShape(global_batch_size=24)))
    assert len(batches) == 12
    for start in range(0, 12, 4):
        window = batches[start : start + 4]
        assert sorted(chain.from_iterable(window)) == list(range(24 * start, 24 * (start + 4)))
        spans = sorted((min(_lengths(batch)), max(_lengths(batch))) for batch in window)
        assert all(one[1] <= other[0] for one, other in zip(spans[:-1], spans[1:], strict=True)), "sorted and cut"
    lengths = [sum(_lengths(batch)) for batch in batches]
    assert any(lengths[start : start + 4] != sorted(lengths[start : start + 4]) for start in (0, 4, 8)), "shuffled"


def test_global_batches_do_not_depend_on_the_hardware() -> None:
    whole = list(_sampler(BatchShape(global_batch_size=24)))
    for world, accumulate in ((2, 1), (1, 3), (3, 2)):
        shape = BatchShape(global_batch_size=24, world_size=world, accumulate=accumulate)
        ranks = [list(_sampler(shape, rank)) for rank in range(world)]
        for step, expected in enumerate(whole):
            parts = [ranks[rank][step * accumulate + part] for part in range(accumulate) for rank in range(world)]
            assert list(chain.from_iterable(parts)) == expected


@pytest.mark.parametrize("first", [1, 3, 4, 7, 8, 11])
def test_it_resumes_at_any_step_and_longer_runs_begin_the_same(first: int) -> None:
    shape = BatchShape(global_batch_size=12, accumulate=2)
    whole = list(_sampler(shape))
    assert list(_sampler(shape, first=first)) == whole[2 * first :]
    assert list(_sampler(shape, steps=first)) == whole[: 2 * first]


def test_lengths_are_requested_once_and_little_by_little() -> None:
    requested: list[int] = []
    sizes: list[int] = []

    def lengths(positions: Sequence[int]) -> list[int]:
        requested.extend(positions)
        sizes.append(len(positions))
        return _lengths(positions)

    shape = BatchShape(global_batch_size=12, accumulate=2)
    for _ in LikeLengthSampler(shape, 0, 12, 0, window=4, seed=7, lengths=lengths):
        pass
    assert requested == list(range(12 * 12)) and sizes[0] == 48 and max(sizes[1:]) == 6


def _module(folder: Path, **changes: Any) -> ImageTextDataModule:
    options: dict[str, Any] = {
        "sources": [SceneSourceConfig(path=str(WorldPaths(root=folder).shards("train")), name="emoji")],
        "collator": load_decoder_only_collator(name=OPT, max_text_length=32, prompt="a photo of"),
        "image_size": 8,
        "mean": CLIP_MEAN,
        "std": CLIP_STD,
        "global_batch_size": 32,
        "steps": 6,
        "seed": 3,
        "num_workers": 0,
        "holdout": 10,
        "batches_of_like_length": 6,
    }
    module = ImageTextDataModule(**(options | changes))
    module.setup("fit")
    return module


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "emoji"
    prepare_scenes(folder, steps=1, global_batch_size=1, train_scenes=300, val_scenes=0, test_scenes=0, nocaps_scenes=0)
    return folder


def _padding(module: ImageTextDataModule) -> tuple[list[str], float]:
    """Sample ids, and padded tokens for each real one."""
    batches: list[Any] = list(module.train_dataloader())
    padded = sum(batch.attention_mask.numel() for batch in batches)
    real = sum(int(batch.attention_mask.sum()) for batch in batches)
    return [name for batch in batches for name in batch.sample_ids], padded / real


@pytest.mark.slow
def test_a_run_reads_the_same_samples_and_captions_with_less_padding(world: Path) -> None:
    plain, much = _padding(_module(world, accumulate=4, batches_of_like_length=None))
    sorted_ids, little = _padding(_module(world, accumulate=4))
    assert plain != sorted_ids and sorted(plain) == sorted(sorted_ids), "shards, keys and numbers of the captions"
    assert little < 1.05 < much


@pytest.mark.parametrize("collator", ["opt", "t5"])
def test_lengths_are_those_of_a_batch(collator: str, world: Path) -> None:
    made: Any = (
        load_decoder_only_collator(name=OPT, max_text_length=14, prompt="a photo of")
        if collator == "opt"
        else load_encoder_decoder_collator(name=T5, max_text_length=32, split_prefix=False)
    )
    module = _module(world, collator=made)
    samples = module._stream.texts(range(40))
    assert None not in samples
    batch = made([module._stream[position] for position in range(40)])
    lengths = batch.attention_mask.sum(1) if collator == "opt" else (batch.labels >= 0).sum(1) - 1
    assert made.text_lengths(samples) == lengths.tolist()


@pytest.mark.slow
def test_processes_agree_and_a_run_resumes(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _padding(_module(world))[0]
    resumed = _module(world)
    resumed.resume(4 * 32, _module(world).fingerprint())
    assert _padding(resumed)[0] == whole[4 * 32 :]
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    ranks = []
    for rank in range(2):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        ranks.append(_padding(_module(world))[0])
    for step in range(6):
        both = ranks[0][16 * step : 16 * (step + 1)] + ranks[1][16 * step : 16 * (step + 1)]
        assert both == whole[32 * step : 32 * (step + 1)]
    with pytest.raises(CheckpointMismatch, match=r"data\.batches_of_like_length was None, is 6"):
        _module(world).resume(32, _module(world, batches_of_like_length=None).fingerprint())


def test_unusable_samples_are_replaced_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shards = write_shards(tmp_path / "shards", [30])
    source = SourceConfig(path=str(shards), name="set")
    module = _module(tmp_path, sources=[source], holdout=0, global_batch_size=4, steps=5, batches_of_like_length=2)
    monkeypatch.setattr("blip2_train.data.sources.shard_source.ShardSource.read_texts", _unusable)
    assert len(_padding(module)[0]) == 20


def test_a_shard_that_one_process_cannot_read_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shards = write_shards(tmp_path / "shards", [15, 15])
    source = SourceConfig(path=str(shards), name="set")
    module = _module(tmp_path, sources=[source], holdout=0, global_batch_size=4, steps=5, batches_of_like_length=2)
    shard = next(iter(sorted(shards.glob("*.tar"))))
    content = shard.read_bytes()
    words = r"00000\.tar: the text of \w+ cannot be read \({}.*repair the shard, or set data.batches_of_like_length"
    shard.write_bytes(content[: len(content) // 2])
    with pytest.raises(ShardError, match=words.format("truncated shard")) as refusal:
        list(module.train_dataloader())
    assert "\n" not in str(refusal.value)
    shard.unlink()
    module = _module(tmp_path, sources=[source], holdout=0, global_batch_size=4, steps=5, batches_of_like_length=2)
    (shards / "00001.tar").rename(tmp_path / "away.tar")
    with pytest.raises(ShardError, match=words.replace("00000", "00001").format("unreadable shard")):
        list(module.train_dataloader())


def _unusable(source: object, index: int) -> None:
    raise UnusableSample("missing text", "")


def test_what_cannot_be_sorted_is_refused(world: Path, tmp_path: Path) -> None:
    stage_1 = load_image_text_collator(tokenizer=write_tokenizer(tmp_path / "bert"), max_text_length=16)
    for changes, message in [
        ({"collator": stage_1}, "is for stage 2"),
        ({"batches_of_like_length": 1}, "2 or more, or null; got 1"),
        ({"access": "sequential"}, "does not go together with data.access=sequential"),
        ({"shuffle_captions": True}, "does not go together with data.shuffle_captions"),
    ]:
        with pytest.raises(ConfigError, match=message):
            _module(world, **changes)
    plain = TrainingSource(source=cast("Any", SimpleNamespace(name="mine")), weight=1.0, held_out=np.zeros(0, np.int64))
    with pytest.raises(ConfigError, match="source 'mine' is remote or has no texts by themselves"):
        check_texts(4, [plain])
    check_texts(None, [plain])
