"""The data of a run for Lightning: training stream, validation items, plan and position."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
from numpy.typing import NDArray

from blip2_train import distributed
from blip2_train.data.batches.transforms import EXACT, EvalTransform, TrainTransform
from blip2_train.data.features.image_keys import CROPS, EVALUATION
from blip2_train.data.features.samples import ImageSet
from blip2_train.data.features.store import StoredFeatures, open_features
from blip2_train.data.features.writing import CropRule
from blip2_train.data.fingerprint import Fingerprint, check_fingerprint
from blip2_train.data.rejections import RejectionLog
from blip2_train.data.sequential.plan import SequentialPlan
from blip2_train.data.sources.config import HELD_OUT, SourceConfig, open_source
from blip2_train.data.sources.holdout import TrainingSource, evenly_chosen, open_training_sources, sources_fingerprint
from blip2_train.data.sources.shard_source import ShardSource
from blip2_train.data.sources.source import CaptionSource
from blip2_train.data.stream.batch_sampler import BatchShape, GlobalBatchSampler
from blip2_train.data.stream.like_lengths import LIKE_LENGTHS, check_like_lengths, check_texts, choose_sampler
from blip2_train.data.stream.loader import BatchLoader, start_fork_server
from blip2_train.data.stream.plan import DataPlan, ImageBytes, make_plan
from blip2_train.data.stream.stream import EvaluationItems, ReadImage, TrainingStream, WholeImages
from blip2_train.data.stream.whole_steps import WholeSteps
from blip2_train.errors import ConfigError
from blip2_train.training.sequential_reading import SequentialReading
from blip2_train.types import Batch, Collator

_DECODER = "data.decoder"


class ImageTextDataModule(lightning.LightningDataModule):
    """Images with captions: a training stream in a fixed global order, and validation items.

    Global batch k holds the same samples whatever the number of processes, readers or accumulated micro-batches, so a
    run continues on other hardware where it stopped; the whole run is one Lightning epoch of `steps * accumulate`
    micro-batches. With `access="sequential"` whole shards are read one after the other instead, in streams that belong
    to a process; see `SequentialReading` and `docs/reading-shards.md`.

    Args:
        sources: what to train on.
        collator: makes a batch of samples, in the readers; a pure function of them.
        image_size: side of the square input in pixels.
        global_batch_size: samples per optimiser step, over all processes.
        steps: optimiser steps of the whole run.
        seed: chooses order, mixture, captions and crops.
        validation: what to validate on; if None, `holdout` samples of `sources` that are never trained on.
        holdout: samples held out when `validation` is None, at most a tenth of all.
        validation_samples: images of `validation` that are used, evenly chosen; all if None.
        captions_per_image: validation items per image.
        accumulate: micro-batches per optimiser step and process.
        eval_batch_size: samples per process and validation batch.
        mean: per channel, of values in 0 … 1: the vision tower's (`vision_tower.normalisation`).
        std: per channel, likewise.
        crop_scale: smallest and largest share of the area that a training crop covers.
        crop_ratio: smallest and largest width / height of a training crop.
        flip: probability of a horizontal flip in training.
        draft: decode JPEGs no larger than training crops need (see `TrainTransform.levels_from_file`).
        decoder: `exact` or `fast` decoding of training images, see `TrainTransform`.
        num_workers: reading processes per training process.
        shuffle_block: samples that stay together when blocks are permuted.
        shuffle_window: samples among which single samples are permuted.
        shuffle_captions: train on wrong captions (negative control).
        batches_of_like_length: global batches among which samples are sorted by the length of their texts, see
            `LikeLengthSampler`; None = no sorting.
        access: `random` = any sample at any time, by an index of the shards; `sequential` = whole shards, one after the
            other.
        streams: shards that a process reads at a time with sequential access, a multiple of `num_workers`.
        shuffle_buffer: samples that each of these streams holds and draws from at random.
        max_rejected_share: largest tolerated share of samples that cannot be used.
        rejected_list: JSON-lines file that lists them; process 1 and up add their number to its name. No list if None.
        prepare: called once per machine before anything is read, for instance to write a set that is made from a seed.
        features: folder of stored features of a frozen vision tower, or several, which are read instead of images
            (docs/stored-features.md).

    Raises:
        ConfigError: if a number or combination cannot be used.
    """

    def __init__(
        self,
        *,
        sources: Sequence[SourceConfig],
        collator: Collator,
        image_size: int,
        global_batch_size: int,
        steps: int,
        seed: int,
        validation: SourceConfig | None = None,
        holdout: int = HELD_OUT,
        validation_samples: int | None = None,
        captions_per_image: int = 1,
        accumulate: int = 1,
        eval_batch_size: int = 64,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        crop_scale: Sequence[float] = (0.5, 1.0),
        crop_ratio: Sequence[float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        draft: bool = False,
        decoder: str = EXACT,
        num_workers: int = 2,
        shuffle_block: int = 256,
        shuffle_window: int = 16384,
        shuffle_captions: bool = False,
        batches_of_like_length: int | None = None,
        access: str = "random",
        streams: int = 4,
        shuffle_buffer: int = 1000,
        max_rejected_share: float = 0.05,
        rejected_list: str | Path | None = None,
        prepare: Callable[[], Any] | None = None,
        features: str | Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if not sources:
            raise ConfigError("data.sources is empty: name at least one source")
        if mean is None or std is None:
            raise ConfigError(
                "data: mean and std of pixel values are not known; they are the vision tower's: give those of "
                "vision_tower.normalisation(VisionConfig(…))"
            )
        numbers = {"steps": steps, "eval_batch_size": eval_batch_size, "captions_per_image": captions_per_image}
        for name, number in numbers.items():
            if number < 1:
                raise ConfigError(f"data: {name} must be at least 1, got {number}")
        if num_workers < 0 or holdout < 0:
            raise ConfigError(f"data: num_workers and holdout must be 0 or more, got {num_workers} and {holdout}")
        if not 0 <= max_rejected_share <= 1:
            raise ConfigError(f"data: max_rejected_share is a share, 0 to 1; got {max_rejected_share}")
        if access not in ("random", "sequential"):
            raise ConfigError(f"data.access is random or sequential, got {access!r}")
        if access == "sequential" and shuffle_captions:
            raise ConfigError("data.shuffle_captions needs samples at random: leave data.access=sequential out")
        excluded = {"data.access=sequential": access == "sequential", "data.shuffle_captions": shuffle_captions}
        check_like_lengths(batches_of_like_length, collator, excluded)
        self._like_lengths = batches_of_like_length
        self._access, self._streams = access, {"streams": streams, "buffer": shuffle_buffer}
        self._reading: SequentialReading | None = None
        self._configs, self._validation, self._prepare = list(sources), validation, prepare
        self._holdout = 0 if validation else holdout
        self._validation_samples = validation_samples
        self._captions_per_image = captions_per_image
        self.collator = collator
        self._batch = {"global_batch_size": global_batch_size, "accumulate": accumulate}
        self._eval_batch_size = eval_batch_size
        self._steps, self._first_step, self._seed = steps, 0, seed
        self._num_workers = num_workers
        self._shuffle: dict[str, Any] = {
            "shuffle_block": shuffle_block,
            "shuffle_window": shuffle_window,
            "shuffle_captions": shuffle_captions,
        }
        self._max_rejected_share, self._ready = max_rejected_share, False
        self._rejected_list = Path(rejected_list) if rejected_list is not None else None
        self.image_size, self.mean, self.std = image_size, tuple(mean), tuple(std)
        self._train_transform = TrainTransform(image_size, mean, std, crop_scale, crop_ratio, flip, draft, decoder)
        self._eval_transform = EvalTransform(image_size, mean, std)
        self._crop_settings = {
            **self.processing(),
            "crop_scale": [float(value) for value in crop_scale],
            "crop_ratio": [float(value) for value in crop_ratio],
            "flip": float(flip),
            "draft": draft,
            "decoder": self._train_transform.decoder,
        }
        self.features: StoredFeatures | None = None if features is None else open_features(features)
        """Features that are read instead of images; None = none."""
        self._read_training: ReadImage = self._train_transform.levels_from_file
        self._read_evaluation: ReadImage = WholeImages(self._eval_transform.levels)
        if self.features is not None:
            self.features.check_transform(self._crop_settings)
            self._read_training, self._read_evaluation = self.features.training_crop, self.features.evaluation_crop
        self.whole_steps = False
        """Whether the first micro-batch of each step holds the others of that step, too (`following`)."""

    def require_files(self) -> None:
        """Look whether the annotation files are there, before anything slow is done."""
        for config in filter(None, () if self._prepare else (*self._configs, self._validation)):
            config.require_file()

    def prepare_data(self) -> None:
        """Make what has to be made, and index every shard; Lightning calls this in one process per machine."""
        if self._prepare is not None:
            self._prepare()
        for config in filter(None, (*(self._configs if self._access == "random" else ()), self._validation)):
            open_source(config)

    def setup(self, stage: str | None = None) -> None:
        """Open the sources; raises what is wrong with them or with the batch sizes."""
        if self._ready:
            return
        self._rejected_list = distributed.gather_objects(self._rejected_list)[0]
        self._shape = BatchShape(world_size=distributed.world_size(), **self._batch)
        opened, chosen = self._open_random() if self._access == "random" else self._open_sequential()
        if self._validation is not None:
            opened.append(open_source(self._validation))
            chosen = [(opened[-1], evenly_chosen(len(opened[-1]), self._validation_samples))]
        self._items = EvaluationItems(
            chosen, self._eval_transform.levels, self._captions_per_image, read_image=self._read_evaluation
        )
        self._validated = chosen
        for source in opened:
            self._new_log(everywhere=False).record(source.rejected, len(source))
        self.rejections = self._new_log()
        if self._num_workers > 0:
            start_fork_server()
        self._ready = True

    def _open_random(self) -> tuple[list[CaptionSource], list[tuple[CaptionSource, NDArray[np.int64]]]]:
        """Open the sources; these, and what of them is held out."""
        self._sources = open_training_sources(self._configs, self._holdout)
        check_texts(self._like_lengths, self._sources)
        transform = self._train_transform
        self._stream = TrainingStream(
            self._sources,
            transform.levels,
            self._seed,
            schedule=GlobalBatchSampler(self._shape, distributed.rank(), self._steps),
            read_image=self._read_training,
            **self._shuffle,
        )
        return [part.source for part in self._sources], [(part.source, part.held_out) for part in self._sources]

    def _open_sequential(self) -> tuple[list[CaptionSource], list[tuple[CaptionSource, NDArray[np.int64]]]]:
        """Find the shards; the source of the one that is held out, and what of it is validated on."""
        self._reading = reading = SequentialReading(
            self._configs,
            self._shape,
            **self._streams,
            seed=self._seed,
            workers=self._num_workers,
            hold_out=self._holdout > 0,
        )
        self._sources = []
        for source in reading.sources:
            self._new_log(everywhere=False).record(source.rejected, len(source.shards))
        first, config = reading.sources[0], self._configs[0]
        if first.held_out is None:
            return [], []
        held_out = ShardSource(
            str(first.held_out), first.name, options=config.storage, caption_key=config.caption_column
        )
        return [held_out], [(held_out, evenly_chosen(len(held_out), self._holdout))]

    def _new_log(self, everywhere: bool = True) -> RejectionLog:
        """A log that lists in this process's file; unless `everywhere`, only in that of process 0."""
        path, rank = self._rejected_list, distributed.rank()
        if path is not None and rank:
            path = path.with_stem(f"{path.stem}.rank{rank}") if everywhere else None
        return RejectionLog(path, self._max_rejected_share)

    def train_dataloader(self) -> BatchLoader | WholeSteps:
        """This process's micro-batches from the first step that is not done; its length is that of the whole run."""
        if self._reading is not None:
            read, collator, done = self._read_training, self.collator, self._first_step
            loader = self._reading.loader(read, collator, self._steps, done, **self._where_used)
        else:
            texts = self._stream, self.collator
            sizes = self._shape, distributed.rank(), self._steps, self._first_step
            sampler = choose_sampler(*texts, *sizes, window=self._like_lengths, seed=self._seed)
            loader = self._loader(self._stream, batch_sampler=sampler)
        return WholeSteps(loader, self.accumulate) if self.whole_steps else loader

    def val_dataloader(self) -> BatchLoader | list[Any]:
        """This process's share of the validation items (every W-th), without repetition; empty without validation."""
        mine = range(distributed.rank(), len(self._items), distributed.world_size())
        return self._loader(self._items, sampler=mine, batch_size=self._eval_batch_size) if len(self._items) else []

    def _loader(self, dataset: Any, **options: Any) -> BatchLoader:
        options |= {"collate_fn": self.collator, "num_workers": self._num_workers, **self._where_used}
        return BatchLoader(dataset, **options)

    @property
    def _where_used(self) -> dict[str, Any]:
        """Options of the loader: batches travel as levels, and are normalised on the device that uses them."""
        return {"pin_memory": self._on_gpu, "finish": None if self._on_gpu else self._train_transform.normalise.batch}

    @property
    def _on_gpu(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self._steps

    @property
    def global_batch_size(self) -> int:
        """Samples per optimiser step, over all processes."""
        return self._batch["global_batch_size"]

    @property
    def accumulate(self) -> int:
        """Micro-batches per optimiser step and process."""
        return self._batch["accumulate"]

    @property
    def first_step(self) -> int:
        """Optimiser steps that were done before this run went on; 0 for a new run."""
        return self._first_step

    @property
    def sources(self) -> list[TrainingSource]:
        """What is trained on, without what is held out; after `setup`. With sequential access nothing is opened."""
        return self._sources

    @property
    def validation_count(self) -> int:
        """Validation items over all processes."""
        return len(self._items)

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Count what was rejected while the batch was read; stops the run when it is too much."""
        if self.trainer is None or self.trainer.training:
            self.rejections.record(batch.rejected, len(batch))
        return batch

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Normalise a batch on its device."""
        return self._train_transform.normalise.batch(batch)

    def processing(self) -> dict[str, Any]:
        """How images are made ready, as plain values for exports."""
        return {"image_size": self.image_size, "mean": list(self.mean), "std": list(self.std)}

    def image_sets(self) -> list[ImageSet]:
        """The samples that the run trains on and validates with; after `setup`, not with sequential access."""
        trained = [np.setdiff1d(np.arange(len(part.source)), part.held_out) for part in self._sources]
        training = [ImageSet(part.source, mine, CROPS) for part, mine in zip(self._sources, trained, strict=True)]
        return [*training, *(ImageSet(source, indices, EVALUATION) for source, indices in self._validated)]

    def crop_rule(self, crops: int) -> tuple[CropRule, dict[str, Any]]:
        """What makes the crops of which features are stored, and the settings that they depend on."""
        rule = CropRule(train=self._train_transform, evaluation=self._eval_transform, crops=crops, seed=self._seed)
        return rule, self._crop_settings

    @property
    def access(self) -> str:
        """How shards are read: `random` or `sequential`."""
        return self._access

    @property
    def image_bytes(self) -> ImageBytes:
        """Bytes of an image, or of its stored features, in a batch."""
        return ImageBytes.of_pixels(self.image_size) if self.features is None else ImageBytes(*[self.features.size] * 2)

    def plan(self) -> DataPlan | SequentialPlan:
        """What the run reads; after `setup`."""
        run: dict[str, Any] = {"steps": self._steps, "first_step": self._first_step}
        sizes: dict[str, Any] = {"validation_samples": self.validation_count, "image_bytes": self.image_bytes}
        if self._reading is not None:
            return self._reading.plan(held_out=0 if self._validation else self.validation_count, **run, **sizes)
        return make_plan(self._sources, self._stream.mixture, self._shape, workers=self._num_workers, **run, **sizes)

    def fingerprint(self) -> Fingerprint:
        """What has to be the same for a run to continue in the same order of samples; after `setup`."""
        return {
            "seed": self._seed,
            "global_batch_size": self._shape.global_batch_size,
            _DECODER: self._train_transform.decoder,
            **(self._shuffle if self._reading is None else {}),
            **({} if self._like_lengths is None else {LIKE_LENGTHS: self._like_lengths}),
            **self.collator.fingerprint(),
            **({} if self.features is None else {"data.features": self.features.fingerprint()}),
            **(sources_fingerprint(self._sources) if self._reading is None else self._reading.fingerprint()),
        }

    def resume(self, samples_consumed: int, fingerprint: Mapping[str, str | int | float]) -> None:
        """Continue after `samples_consumed` samples of the global order; after `setup`, before the loaders are made.

        The number of processes, readers and accumulated micro-batches may differ from those of the run before; with
        sequential access only that of readers. Images are decoded as the run began, whatever `decoder` is.

        Raises:
            CheckpointMismatch: if the order of samples would not be the same.
        """
        before = {_DECODER: EXACT, **fingerprint}
        self._train_transform.go_on_with(before[_DECODER])
        check_fingerprint(before, self.fingerprint())
        self._first_step = samples_consumed // self._shape.global_batch_size

    def state_dict(self) -> dict[str, Any]:
        """Position and fingerprint; Lightning stores them in its checkpoints."""
        done = self.trainer.global_step if self.trainer is not None else self._first_step
        state = {"samples_consumed": done * self._shape.global_batch_size, "fingerprint": self.fingerprint()}
        return state if self._reading is None else {**state, "streams": self._reading.positions(done)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where the checkpoint was written; Lightning calls this after `setup`."""
        self.resume(state_dict["samples_consumed"], state_dict["fingerprint"])
        if self._reading is not None:
            self._reading.resume(state_dict.get("streams"), state_dict["samples_consumed"])
