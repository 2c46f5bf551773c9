"""The data module as Lightning uses it: shards in, batches out, on any hardware, from any step."""

from __future__ import annotations

import json
import logging
import shutil
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from shard_files import sample, write_shards, write_tar, write_tokenizer, write_web_shard

from blip2_train import distributed
from blip2_train.data.batches.collate import ImageTextCollator, load_image_text_collator
from blip2_train.data.batches.transforms import CLIP_MEAN, CLIP_STD
from blip2_train.data.sources.config import SourceConfig
from blip2_train.errors import CheckpointMismatch, ConfigError, ShardError
from blip2_train.training.data_module import ImageTextDataModule
from blip2_train.types import ImageTextBatch


@pytest.fixture(autouse=True)
def _index_in_the_test_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def _collator(folder: Path, length: int = 16) -> ImageTextCollator:
    return load_image_text_collator(tokenizer=write_tokenizer(folder.parent / "bert"), max_text_length=length)


def _module(folder: Path, **changes: Any) -> ImageTextDataModule:
    options: dict[str, Any] = {
        "sources": [SourceConfig(path=str(folder), name="set")],
        "collator": _collator(folder),
        "image_size": 16,
        "mean": CLIP_MEAN,
        "std": CLIP_STD,
        "global_batch_size": 8,
        "steps": 10,
        "seed": 3,
        "num_workers": 0,
        "shuffle_block": 4,
        "shuffle_window": 16,
    }
    module = ImageTextDataModule(**(options | changes))
    module.prepare_data()
    module.setup("fit")
    return module


def _same(one: ImageTextBatch, other: ImageTextBatch) -> bool:
    tensors = ("pixel_values", "input_ids", "attention_mask", "image_ids")
    return one.sample_ids == other.sample_ids and all(torch.equal(getattr(one, t), getattr(other, t)) for t in tensors)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "shards", [17, 9, 14])


@pytest.mark.slow
def test_readers_do_not_change_the_batches(shards: Path) -> None:
    plain, workers = _module(shards), _module(shards, num_workers=2)
    state = torch.get_rng_state()
    for one, other in zip(plain.train_dataloader(), workers.train_dataloader(), strict=True):
        assert _same(one, other)
    for one, other in zip(plain.val_dataloader(), workers.val_dataloader(), strict=True):
        assert _same(one, other)
    assert torch.equal(torch.get_rng_state(), state), "the loaders draw nothing from the global generator"


@pytest.mark.slow
def test_an_error_in_a_reader_is_one_line(tmp_path: Path) -> None:
    write_tar(tmp_path / "data" / "0.tar", [("a.jpg", b"x"), ("a.txt", "words")])
    module = _module(tmp_path / "data", num_workers=1)
    with pytest.raises(ShardError, match=r"^50 samples in a row of source 'set'") as caught:
        next(iter(module.train_dataloader()))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("first_step", [1, 4, 9])
def test_resume_is_the_rest_of_the_uninterrupted_run(shards: Path, first_step: int) -> None:
    whole = list(_module(shards).train_dataloader())
    module = _module(shards)
    module.resume(8 * first_step, _module(shards).fingerprint())
    loader = module.train_dataloader()
    rest = list(loader)
    assert len(loader) == len(whole) == 10, "the length stays that of the whole run"
    assert len(rest) == 10 - first_step
    assert all(_same(one, other) for one, other in zip(whole[first_step:], rest, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("world", "accumulate"), [(2, 1), (1, 4), (4, 2)])
def test_other_hardware_reads_the_same_global_batches(
    shards: Path, monkeypatch: pytest.MonkeyPatch, world: int, accumulate: int
) -> None:
    single = list(_module(shards).train_dataloader())
    monkeypatch.setattr(distributed, "world_size", lambda: world)
    ranks, validation = [], []
    for rank in range(world):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        module = _module(shards, accumulate=accumulate)
        module.resume(8 * 2, module.fingerprint())
        ranks.append(list(module.train_dataloader()))
        validation.append([name for batch in module.val_dataloader() for name in batch.sample_ids])
    assert len({len(batches) for batches in ranks}) == 1
    for step in range(2, 10):
        micro = [ranks[r][(step - 2) * accumulate + a] for a in range(accumulate) for r in range(world)]
        assert tuple(name for batch in micro for name in batch.sample_ids) == single[step].sample_ids
        assert torch.equal(torch.cat([batch.pixel_values for batch in micro]), single[step].pixel_values)
    every = [name for names in validation for name in names]
    assert len(every) == len(set(every)) == module.validation_count == 4


def test_a_replaced_shard_of_equally_many_samples_is_refused_and_a_copy_is_not(shards: Path, tmp_path: Path) -> None:
    kept = json.loads(json.dumps(_module(shards).fingerprint()))
    elsewhere = tmp_path / "copied" / "elsewhere"
    shutil.copytree(shards, elsewhere, copy_function=shutil.copyfile)  # other times of change
    shutil.copytree(shards.parent / "bert", elsewhere.parent / "bert", dirs_exist_ok=True)
    _module(elsewhere).resume(8, kept)
    replaced = elsewhere / "00001.tar"
    with tarfile.open(replaced) as file:
        members = [(member.name, file.extractfile(member).read()) for member in file]  # type: ignore[union-attr]
    longer = [(name, content + b" and more" if name.endswith(".txt") else content) for name, content in members]
    write_tar(replaced, longer)
    assert replaced.stat().st_size == (shards / "00001.tar").stat().st_size, "sizes of tar files do not tell"
    with pytest.raises(CheckpointMismatch, match=r"content of shards: rows in source set was .*, is .*init_from"):
        _module(elsewhere).resume(8, kept)
    earlier = {key: value for key, value in kept.items() if not key.startswith("content of shards")}
    _module(elsewhere).resume(8, earlier)  # of an earlier version, which knew no such entries


def test_a_different_order_is_refused_with_the_reason(shards: Path, tmp_path: Path) -> None:
    module = _module(shards)
    kept = json.loads(json.dumps(module.fingerprint()))
    module.resume(8, kept)
    more = write_shards(tmp_path / "more" / "shards", [17, 9, 14, 5])
    words = write_tokenizer(tmp_path / "bert2", ["cat"])
    other = load_image_text_collator(tokenizer=words, max_text_length=16)
    for changes, message in [
        ({"seed": 4}, "seed was 3, is 4"),
        ({"global_batch_size": 16}, "global_batch_size was 8, is 16"),
        ({"shuffle_window": 8}, "shuffle_window was 16, is 8"),
        ({"sources": [SourceConfig(path=str(more), name="set")]}, "data source set was 36 samples.* is 41 samples"),
        ({"sources": [SourceConfig(path=str(shards), name="other")]}, "data sources was set, is other"),
        ({"collator": _collator(shards, 12)}, "max_text_length was 16, is 12"),
        ({"collator": other}, "tokenizer was"),
    ]:
        with pytest.raises(CheckpointMismatch, match=message) as caught:
            _module(shards, **changes).resume(8, kept)
        assert "\n" not in str(caught.value)


def test_batches_travel_as_levels_and_are_normalised_where_they_are_used(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = list(_module(shards).train_dataloader())
    assert all(batch.pixel_values.dtype == torch.float32 for batch in here)
    monkeypatch.setattr(ImageTextDataModule, "_on_gpu", property(lambda module: True))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    module = _module(shards)
    for batch, expected in zip(module.train_dataloader(), here, strict=True):
        assert batch.pixel_values.dtype == torch.uint8
        assert _same(module.on_after_batch_transfer(batch, 0), expected)
    assert all(batch.pixel_values.dtype == torch.uint8 for batch in module.val_dataloader())


@pytest.mark.parametrize("began", ["exact", "fast"])
def test_a_run_goes_on_with_the_decoder_that_it_began_with(
    shards: Path, began: str, caplog: pytest.LogCaptureFixture
) -> None:
    kept = json.loads(json.dumps(_module(shards, decoder=began).fingerprint()))
    same = _module(shards, decoder=began)
    with caplog.at_level(logging.INFO):
        same.resume(8, kept)
        assert "goes on with it" not in caplog.text
        other = _module(shards, decoder="fast" if began == "exact" else "exact")
        other.resume(8, kept)
    assert caplog.text.count(f"began with data.decoder={began} and goes on with it, not with") == 1
    assert other.fingerprint() == kept
    for one, two in zip(other.train_dataloader(), same.train_dataloader(), strict=True):
        assert _same(one, two)


def test_a_run_of_a_version_without_decoders_is_resumed_again_and_again(shards: Path) -> None:
    kept = json.loads(json.dumps(_module(shards).fingerprint()))
    state = {key: value for key, value in kept.items() if key != "data.decoder"}
    for _ in range(3):
        module = _module(shards, decoder="fast")
        module.resume(8, state)
        state = module.fingerprint()
        assert state == kept


def test_a_decoder_that_cannot_be_taken_over_is_refused(shards: Path) -> None:
    kept = _module(shards, decoder="fast").fingerprint()
    with pytest.raises(CheckpointMismatch, match=r"data\.decoder was fast, is exact"):
        _module(shards, draft=True).resume(8, kept)
    with pytest.raises(CheckpointMismatch, match=r"data\.decoder was later, is fast"):
        _module(shards, decoder="fast").resume(8, kept | {"data.decoder": "later"})


def test_the_plan_lists_what_will_be_read(shards: Path) -> None:
    plan = _module(shards, validation=SourceConfig(path=str(shards / "00001.tar")), accumulate=2).plan()
    assert (plan.sources[0].samples, plan.sources[0].drawn, plan.sources[0].epochs) == (40, 80, 2.0)
    assert plan.validation_samples == 9 and plan.held_out == 0 and plan.shape.micro_batch_size == 4
    assert plan.sources[0].bytes == sum(shard.stat().st_size for shard in shards.iterdir())
    text = "\n".join(plan.lines())
    assert "set: 40 samples in 3 files" in text and "2.00 epochs" in text and "8 samples a step = 1 processes" in text
    assert "each 2 times" in text and "none dropped" in text and "readers: none" in text
    assert "4 held out" in "\n".join(_module(shards).plan().lines())
    alone = _module(shards, steps=4, num_workers=3, global_batch_size=2).plan()
    assert "each at most once, 28 never" in alone.lines()[0] and "readers: 1 x 3 = 3, each makes 2" in alone.lines()[-1]
    assert alone.waiting_bytes == (4 + 2 * 3) * 2 * 3 * 16 * 16


def test_the_account_of_the_sources_is_what_the_batches_held(tmp_path: Path) -> None:
    for name, size in (("left", 10), ("right", 30)):
        write_tar(tmp_path / f"{name}.tar", [member for n in range(size) for member in sample(f"{name}{n}")])
    sources = [
        SourceConfig(path=str(tmp_path / f"{name}.tar"), weight=weight) for name, weight in (("left", 3), ("right", 1))
    ]
    module = _module(tmp_path, sources=sources, holdout=0)
    held = Counter(name.split("/")[1][0] for batch in list(module.train_dataloader())[:6] for name in batch.sample_ids)
    plan = module.plan()
    assert plan.epochs_at(6) == {"data/epochs_left": held["l"] / 10, "data/epochs_right": held["r"] / 30}
    assert plan.account(6)[0].startswith(f"left: {held['l']} samples = {held['l'] / 10:.2f} epochs")
    assert "(requested: 25 %)" in plan.account(6)[1]
    module.resume(8 * 6, module.fingerprint())
    assert f"left at {held['l'] / 10:.2f} epochs" in module.plan().lines()[-1]


@pytest.mark.parametrize("first_step", [0, 1, 10**7])
def test_resuming_reads_no_more_than_the_first_batch(
    shards: Path, monkeypatch: pytest.MonkeyPatch, first_step: int
) -> None:
    module = _module(shards, steps=first_step + 5)
    module.resume(8 * first_step, module.fingerprint())
    source, numbers = module.sources[0].source, []
    read = source.read
    monkeypatch.setattr(source, "read", lambda number: numbers.append(number) or read(number))
    next(iter(module.train_dataloader()))
    assert len(numbers) == 8


def test_validation_can_be_limited_or_missing(shards: Path) -> None:
    module = _module(shards, validation=SourceConfig(path=str(shards)), validation_samples=7, eval_batch_size=4)
    assert [len(batch) for batch in module.val_dataloader()] == [4, 3] and module.validation_count == 7
    assert _module(shards, holdout=0).val_dataloader() == []


def test_rejections_are_counted_listed_and_stop_the_run(tmp_path: Path) -> None:
    bad = [member for n in range(3) for member in ((f"bad{n}.jpg", b"<html>"), (f"bad{n}.txt", "words"))]
    good = [member for n in range(20) for member in sample(f"good{n}")]
    write_tar(tmp_path / "data" / "0.tar", [*good, *bad, ("alone.txt", "no image")])
    listed = tmp_path / "run" / "rejected.jsonl"
    module = _module(tmp_path / "data", rejected_list=listed, holdout=0, max_rejected_share=0.5)
    for batch in module.train_dataloader():
        module.on_before_batch_transfer(batch, 0)
    assert module.rejections.counts == {"unreadable image": 3, "missing image": 1}
    assert len(listed.read_text().splitlines()) == 4
    strict = _module(tmp_path / "data", holdout=0, max_rejected_share=0.01, steps=100)
    with pytest.raises(ShardError, match=r"more than the tolerated share 0.01"):
        for batch in strict.train_dataloader():
            strict.on_before_batch_transfer(batch, 0)


def test_too_many_broken_samples_stop_before_training(tmp_path: Path) -> None:
    alone = [(f"{n}.txt", "no image") for n in range(30)]
    write_tar(tmp_path / "data" / "0.tar", [*sample("good"), *alone])
    with pytest.raises(ShardError, match=r"30 of 31 samples read were rejected .30 missing image."):
        _module(tmp_path / "data")


@pytest.mark.parametrize(
    "wrong",
    [{"sources": []}, {"steps": 0}, {"num_workers": -1}, {"global_batch_size": 7, "accumulate": 2},
     {"max_rejected_share": 2.0}, {"image_size": 0}, {"eval_batch_size": 0}],
)  # fmt: skip
def test_impossible_options_are_refused(shards: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        _module(shards, **wrong)
    assert "\n" not in str(caught.value)


def test_what_is_prepared_is_read(tmp_path: Path) -> None:
    module = _module(tmp_path / "made", prepare=lambda: write_shards(tmp_path / "made", [12]))
    assert module.plan().sources[0].samples == 11


def test_img2dataset_shards_of_web_images_need_no_special_case(tmp_path: Path) -> None:
    write_web_shard(tmp_path / "web")
    module = _module(tmp_path / "web", global_batch_size=13, steps=4, holdout=0)
    batches = list(module.train_dataloader())
    for batch in batches:
        assert len(set(batch.sample_ids)) == 13 and batch.rejected == ()
        assert torch.isfinite(batch.pixel_values).all()
        assert (batch.attention_mask.sum(1) >= 3).all() and batch.longest_text <= 16
        assert (batch.input_ids[:, 0] == 2).all()
    assert batches[0].sample_ids != batches[1].sample_ids, "two epochs differ"


class _Recorder(lightning.LightningModule):
    """Remembers what it was trained and validated on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.trained: list[tuple[str, ...]] = []
        self.validated: list[str] = []

    def training_step(self, batch: ImageTextBatch, batch_idx: int) -> torch.Tensor:
        self.trained.append(batch.sample_ids)
        return (self.weight - batch.pixel_values.mean()) ** 2

    def validation_step(self, batch: ImageTextBatch, batch_idx: int) -> None:
        self.validated += batch.sample_ids

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def _fit(folder: Path, keep: Path, resume: Path | None = None) -> _Recorder:
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    checkpoint = lightning.pytorch.callbacks.ModelCheckpoint(keep, "{step}", every_n_train_steps=3, save_top_k=-1)
    trainer = lightning.Trainer(
        accelerator="cpu", devices=1, max_steps=10, max_epochs=1, use_distributed_sampler=False, callbacks=[checkpoint],
        accumulate_grad_batches=2, val_check_interval=4, num_sanity_val_steps=0, **options,
    )  # fmt: skip
    module = ImageTextDataModule(
        sources=[SourceConfig(path=str(folder))], collator=_collator(folder, 32), image_size=16, mean=CLIP_MEAN,
        std=CLIP_STD, global_batch_size=8, steps=10, seed=3, num_workers=0, accumulate=2,
        shuffle_block=4, shuffle_window=16,
    )  # fmt: skip
    recorder = _Recorder()
    trainer.fit(recorder, module, ckpt_path=resume, weights_only=True)
    return recorder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_lightning_resumes_where_the_checkpoint_was_written(shards: Path, tmp_path: Path) -> None:
    whole = _fit(shards, tmp_path / "whole")
    assert len(whole.trained) == 20
    assert len(whole.validated) == 5 * 4 and len(set(whole.validated)) == 4
    rest = _fit(shards, tmp_path / "rest", resume=tmp_path / "whole" / "step=3.ckpt")
    assert rest.trained == whole.trained[6:]
    assert torch.equal(rest.weight, whole.weight)
