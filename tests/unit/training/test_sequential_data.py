"""Shards read one after the other: every sample once per epoch, an order that the seed decides, and exact resuming."""

from __future__ import annotations

import itertools
import pickle
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from s3_server import running_s3
from shard_files import image, write_shards, write_tar, write_tokenizer

from blip2_train import distributed
from blip2_train.data.batches.collate import load_image_text_collator
from blip2_train.data.batches.transforms import CLIP_MEAN, CLIP_STD
from blip2_train.data.sequential import source_cursor
from blip2_train.data.sequential.pipes import allow_commands
from blip2_train.data.sequential.shard_stream import StreamedSample
from blip2_train.data.sources.config import SourceConfig
from blip2_train.data.storage.options import StorageOptions
from blip2_train.data.storage.remote import Storage
from blip2_train.errors import CheckpointMismatch, ConfigError, ShardError
from blip2_train.training.data_module import ImageTextDataModule
from blip2_train.types import ImageTextBatch, RejectedSample

SIZES = [9, 4, 13, 6, 8]


@pytest.fixture(autouse=True)
def _index_in_the_test_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "shards", SIZES)


def _module(folder: Path, **changes: Any) -> ImageTextDataModule:
    options: dict[str, Any] = {
        "sources": [SourceConfig(path=str(folder), name="set")],
        "collator": load_image_text_collator(tokenizer=write_tokenizer(folder.parent / "bert"), max_text_length=16),
        "image_size": 16,
        "mean": CLIP_MEAN,
        "std": CLIP_STD,
        "global_batch_size": 4,
        "steps": 30,
        "seed": 3,
        "num_workers": 0,
        "holdout": 0,
        "access": "sequential",
        "streams": 2,
        "shuffle_buffer": 5,
    }
    module = ImageTextDataModule(**(options | changes))
    module.prepare_data()
    module.setup("fit")
    return module


def _batches(module: ImageTextDataModule) -> list[ImageTextBatch]:
    """All that is trained on."""
    return list(cast("Iterable[ImageTextBatch]", module.train_dataloader()))


def _ids(batches: list[ImageTextBatch]) -> list[tuple[str, ...]]:
    return [batch.sample_ids for batch in batches]


def _same(one: ImageTextBatch, other: ImageTextBatch) -> bool:
    tensors = ("pixel_values", "input_ids", "attention_mask", "image_ids")
    return one.sample_ids == other.sample_ids and all(torch.equal(getattr(one, t), getattr(other, t)) for t in tensors)


def _of_stream(batches: list[ImageTextBatch], stream: int, streams: int) -> list[str]:
    return [name for batch in batches[stream::streams] for name in batch.sample_ids]


def test_one_stream_gives_each_sample_once_per_epoch_in_the_order_of_the_seed(shards: Path) -> None:
    batches = _batches(_module(shards, streams=1))
    names = _of_stream(batches, 0, 1)
    first, second, third = names[:40], names[40:80], names[80:]
    everything = {f"{shard:05d}/{shard:05d}{n:04d}#0" for shard, size in enumerate(SIZES) for n in range(size)}
    assert set(first) == set(second) == set(third) == everything and len(third) == 40
    assert first != second and first != sorted(first)
    assert _ids(_batches(_module(shards, streams=1))) == _ids(batches)
    assert _ids(_batches(_module(shards, streams=1, seed=4))) != _ids(batches)


def test_the_samples_are_those_of_random_access(shards: Path) -> None:
    def by_id(**changes: Any) -> dict[str, tuple[int, str]]:
        batches = _batches(_module(shards, streams=1, steps=10, **changes))
        return {
            name: (int(number), str(ids.tolist()))
            for batch in batches
            for name, number, ids in zip(batch.sample_ids, batch.image_ids, batch.input_ids, strict=True)
        }

    assert by_id() == by_id(access="random")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_readers_changes_nothing(shards: Path, workers: int) -> None:
    plain = _batches(_module(shards, streams=4, steps=12))
    read = _batches(_module(shards, streams=4, steps=12, num_workers=workers))
    assert len(plain) == len(read) == 12 and all(map(_same, plain, read))


def test_readers_that_cannot_share_the_streams_are_refused(shards: Path) -> None:
    with pytest.raises(ConfigError, match=r"num_workers=3 .*data\.num_workers=1 or 2 or 4"):
        _module(shards, streams=4, num_workers=3)


def test_too_few_shards_for_the_streams_are_refused(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    with pytest.raises(ConfigError, match=r"5 shards .* 8 streams .*set data\.streams=2"):
        _module(shards, streams=4)
    with pytest.raises(ConfigError, match="fewer processes"):
        monkeypatch.setattr(distributed, "world_size", lambda: 6)
        _module(shards, streams=4, global_batch_size=6)


def _processes(monkeypatch: pytest.MonkeyPatch, folder: Path, **changes: Any) -> list[list[ImageTextBatch]]:
    """The batches of two processes."""
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    actual = []
    for rank in range(2):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        actual.append(_batches(_module(folder, **changes)))
    return actual


def test_two_processes_see_disjoint_shards_and_equally_many_steps(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = _processes(monkeypatch, shards, streams=1, steps=30)
    assert len(one) == len(other) == 30
    source = _module(shards, streams=1)._reading.sources[0]  # type: ignore[union-attr]
    epoch: list[str] = []
    for rank, batches in enumerate((one, other)):
        share = source.share(3, 0, rank, 2)
        first = _of_stream(batches, 0, 1)[: sum(SIZES[shard] for shard in share)]
        assert {name.partition("/")[0] for name in first} == {f"{shard:05d}" for shard in share}
        epoch += first
    assert len(set(epoch)) == len(epoch) == 40, "each sample once per epoch"


def test_the_shares_of_an_epoch_are_the_source(shards: Path) -> None:
    source = _module(shards)._reading.sources[0]  # type: ignore[union-attr]
    for epoch in range(4):
        shares = [source.share(7, epoch, stream, 3) for stream in range(3)]
        assert sorted(itertools.chain(*shares)) == list(range(5))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("done", [1, 4, 11, 23])
def test_resuming_is_the_rest_of_the_uninterrupted_run(shards: Path, done: int, workers: int) -> None:
    whole = _batches(_module(shards))
    begun = _module(shards, num_workers=workers)
    loader = iter(begun.train_dataloader())
    for _ in range(done + 1):  # the batch of a step that was not done is read, too
        next(loader)
    begun._first_step = done
    state = torch.load(_saved(begun.state_dict(), shards.parent), weights_only=True)
    again = _module(shards)
    again.load_state_dict(state)
    rest = _batches(again)
    assert len(again.train_dataloader()) == 30 and len(rest) == 30 - done
    assert all(map(_same, whole[done:], rest))


def test_a_run_that_was_resumed_can_be_resumed(shards: Path) -> None:
    whole = _batches(_module(shards))
    state: dict[str, Any] | None = None
    for done in (3, 7, 8):
        module = _module(shards)
        if state is not None:
            module.load_state_dict(state)
        loader = iter(module.train_dataloader())
        for batch in whole[module.first_step : done]:
            assert _same(batch, cast(ImageTextBatch, next(loader)))
        module._first_step = done
        state = module.state_dict()


def _saved(state: dict[str, Any], folder: Path) -> Path:
    torch.save(state, folder / "state.pt")
    return folder / "state.pt"


def test_only_the_shards_of_the_buffer_are_read_again(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = source_cursor.stream_samples

    def noted(shard: Path, storage: Storage) -> Iterator[StreamedSample | RejectedSample]:
        opened.append(shard.stem)
        return real(shard, storage)

    monkeypatch.setattr(source_cursor, "stream_samples", noted)
    module = _module(shards, streams=1, steps=10, shuffle_buffer=2)
    loader = iter(module.train_dataloader())
    for _ in range(8):
        next(loader)
    before = list(opened)
    module._first_step = 8
    state = module.state_dict()
    opened.clear()
    again = _module(shards, streams=1, steps=10, shuffle_buffer=2)
    again.load_state_dict(state)
    next(iter(again.train_dataloader()))
    needed = state["streams"][0][0]["set"]["shards"]
    assert len(needed) <= 2 < len(before) and opened == before[-len(needed) :]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"streams": 1}, "data.streams was 2, is 1"),
        ({"shuffle_buffer": 6}, "data.shuffle_buffer"),
        ({"access": "random"}, "data.access"),
        ({"accumulate": 2}, "accumulate"),
        ({"seed": 5}, "seed"),
    ],
)
def test_another_order_is_refused(shards: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointMismatch, match=words):
        _module(shards, **change).load_state_dict(_module(shards).state_dict())


def test_another_number_of_processes_is_refused(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = _module(shards).state_dict()
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    with pytest.raises(CheckpointMismatch, match=r"number of processes .* was 1, is 2"):
        _module(shards).load_state_dict(state)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("draws", 10**15, "does not fit its own run"),
        ("epoch", 10**9, "does not fit its own run"),
        ("shards", [[0, 9]], "does not fit its own run"),
        ("total", -1, "total"),
        ("draws", "many", "draws"),
        ("other", 1, "other"),
    ],
)
def test_a_position_that_no_run_can_have_is_refused(shards: Path, key: str, value: Any, words: str) -> None:
    module = _module(shards)
    state = module.state_dict()
    state["streams"][0][0] = {"set": {**state["streams"][0][0]["set"], key: value}}
    with pytest.raises(CheckpointMismatch, match=words):
        _module(shards).load_state_dict(state)
    others: list[Any] = [None, [], [[]], {"a": 1}, [[{}, {}]]]
    for damaged in others:
        with pytest.raises(CheckpointMismatch, match="position in the data"):
            _module(shards).load_state_dict(state | {"streams": damaged})


def test_a_position_without_its_shards_is_named(shards: Path) -> None:
    module = _module(shards)
    loader = iter(module.train_dataloader())
    next(loader)
    module._first_step = 1
    state = module.state_dict()
    state["streams"][0][0]["set"] |= {"shards": []}
    again = _module(shards)
    again.load_state_dict(state)
    with pytest.raises(ShardError, match="damaged; resume from another"):
        list(again.train_dataloader())


def test_a_shard_that_lost_samples_since_is_named(shards: Path) -> None:
    module = _module(shards, streams=1, shuffle_buffer=30)
    next(iter(module.train_dataloader()))
    module._first_step = 1
    state = module.state_dict()
    write_shards(shards, [1] * len(SIZES))
    again = _module(shards, streams=1, shuffle_buffer=30)
    state["fingerprint"] = again.fingerprint()
    again.load_state_dict(state)
    with pytest.raises(ShardError, match="gives fewer samples than before"):
        next(iter(again.train_dataloader()))


def test_damage_and_bad_samples_are_counted_and_replaced(shards: Path) -> None:
    damaged = shards / "00002.tar"
    content = damaged.read_bytes()
    damaged.write_bytes(content[: len(content) // 2])
    members: list[tuple[str, bytes | str]] = [("bad.jpg", b"no image"), ("bad.txt", "x"), ("half.jpg", image())]
    write_tar(
        shards / "00005.tar",
        [*members, ("good.jpg", image()), ("good.txt", "a cat"), ("empty.jpg", image()), ("empty.txt", " ")],
    )
    batches = _batches(_module(shards, streams=1))
    rejected = [one for batch in batches for one in batch.rejected]
    assert all(len(batch.sample_ids) == 4 for batch in batches)
    reasons = {(Path(one.source).name, one.key, one.reason) for one in rejected}
    assert reasons == {
        ("00002.tar", "", "truncated shard"),
        ("00005.tar", "bad", "unreadable image"),
        ("00005.tar", "half", "missing text"),
        ("00005.tar", "empty", "empty caption"),
    }
    stop = SourceConfig(path=str(shards), name="set", storage=StorageOptions(bad_shards="stop"))
    with pytest.raises(ShardError, match=r"^truncated shard: .*00002.tar.*bad_shards=skip"):
        _batches(_module(shards, sources=[stop], streams=1))


def test_a_shard_that_an_index_lists_and_that_is_missing_is_reported(shards: Path) -> None:
    (shards / "index.json").write_text(
        '{"settings": {}, "shards": [{"file": "00009.tar", "samples": 3, "bytes": 100}]}'
    )
    assert any("1 missing shard" in line for line in _module(shards).plan().lines())


def test_shards_without_a_usable_sample_end_the_run(tmp_path: Path) -> None:
    for number in range(2):
        write_tar(tmp_path / "data" / f"{number}.tar", [("a.jpg", image())])
    with pytest.raises(ShardError, match=r"no usable sample in 1 shards of source 'set' .*missing text"):
        _batches(_module(tmp_path / "data"))


def test_the_last_shard_is_held_out_for_validation(shards: Path) -> None:
    module = _module(shards, holdout=3)
    held_out = [name for batch in module.val_dataloader() for name in batch.sample_ids]
    trained = {name for batch in _batches(module) for name in batch.sample_ids}
    assert len(held_out) == module.validation_count == 3 and all(name.startswith("00004/") for name in held_out)
    assert not any(name.startswith("00004/") for name in trained) and len(trained) == 32
    assert any("of " + str(shards / "00004.tar") in line for line in module.plan().lines())


def test_nothing_can_be_held_out_of_a_single_shard(tmp_path: Path) -> None:
    write_shards(tmp_path / "one", [9])
    with pytest.raises(ConfigError, match=r"is the only one: give data\.validation"):
        _module(tmp_path / "one", holdout=3, streams=1)


def test_validation_may_be_a_source_of_its_own(shards: Path) -> None:
    other = SourceConfig(path=str(write_shards(shards.parent / "other", [4])), name="other")
    module = _module(shards, validation=other, holdout=3)
    assert module.validation_count == 4
    assert len({name for batch in _batches(module) for name in batch.sample_ids}) == 40


def test_readers_are_sent_little(shards: Path) -> None:
    for number in range(5, 2005):
        (shards / f"{number:05d}.tar").touch()
    source = _module(shards)._reading.sources[0]  # type: ignore[union-attr]
    sent = pickle.dumps(source)
    assert len(sent) < 20_000, "10 bytes a shard: 100,000 take less than a megabyte"
    assert pickle.loads(sent).shards == source.shards and pickle.loads(sent).names == source.names


def test_sources_are_mixed_by_their_weights(shards: Path) -> None:
    members = [part for n in range(6) for part in ((f"x{n}.jpg", image()), (f"x{n}.txt", "a dog"))]
    for number in range(2):
        write_tar(shards.parent / "dogs" / f"{number}.tar", members)
    sources = [
        SourceConfig(path=str(shards), name="cats", weight=3.0),
        SourceConfig(path=str(shards.parent / "dogs"), name="dogs", weight=1.0),
    ]
    whole = _batches(_module(shards, sources=sources, steps=64))
    kinds = Counter("x" in name for batch in whole for name in batch.sample_ids)
    assert kinds[True] / 256 == pytest.approx(0.25, abs=0.05)
    module = _module(shards, sources=sources, steps=64)
    loader = iter(module.train_dataloader())
    for _ in range(21):
        next(loader)
    module._first_step = 20
    again = _module(shards, sources=sources, steps=64)
    again.load_state_dict(module.state_dict())
    assert all(map(_same, whole[20:], _batches(again)))


def test_what_cannot_be_read_one_after_the_other_is_refused(shards: Path, tmp_path: Path) -> None:
    two = [SourceConfig(path=str(shards), name="a"), SourceConfig(path=str(shards), name="b")]
    with pytest.raises(ConfigError, match="'a' has no weight"):
        _module(shards, sources=two)
    with pytest.raises(ConfigError, match="is no folder or list of tar shards"):
        _module(shards, sources=[SourceConfig(path=str(tmp_path / "captions.csv"))])
    with pytest.raises(ConfigError, match="shuffle_captions"):
        _module(shards, shuffle_captions=True)
    with pytest.raises(ConfigError, match="random or sequential"):
        _module(shards, access="streaming")


def test_commands_that_were_allowed_are_read_and_others_refused(shards: Path) -> None:
    address = f"pipe:cat {shards}/{{00000..00004}}.tar"
    source = [SourceConfig(path=address, name="set")]
    with pytest.raises(ConfigError, match="not typed on the command line"):
        _module(shards, sources=source)
    with pytest.raises(ShardError, match=r"data\.access=sequential"):
        _module(shards, sources=source, access="random")
    allow_commands([address])
    plain = _module(shards, steps=10, sources=source)
    names = {name.split("#")[0].rpartition("/")[2] for batch in _batches(plain) for name in batch.sample_ids}
    assert len(names) >= 20
    with pytest.raises(ConfigError, match="is the output of a command"):
        _module(shards, sources=source, holdout=2)


@pytest.mark.slow
def test_remote_shards_take_few_requests(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = _batches(_module(shards, steps=10, streams=1))
    with running_s3(monkeypatch) as s3:
        s3.upload(shards, "set")
        source = [SourceConfig(path="s3://data/set", name="set")]
        module = _module(shards, steps=10, streams=1, sources=source)
        s3.requests.clear()
        remote = _batches(module)
        assert s3.gets(".tar") == len(SIZES), "40 samples in five shards"
    names = [name.rpartition("/")[2] for batch in local for name in batch.sample_ids]
    assert [name.rpartition("/")[2] for batch in remote for name in batch.sample_ids] == names
    assert all(torch.equal(a.pixel_values, b.pixel_values) for a, b in zip(local, remote, strict=True))
