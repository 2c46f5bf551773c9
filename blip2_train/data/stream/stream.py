"""The training stream and the evaluation items: a sample for every position, with replacements for unusable ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from blip2_train.data.batches.images import decode_image
from blip2_train.data.order import SampleOrder, stable_seed
from blip2_train.data.printable_names import printable_name
from blip2_train.data.record import Record, SampleLocation
from blip2_train.data.rejections import UnreadableShard, UnusableSample
from blip2_train.data.sources.holdout import TrainingSource
from blip2_train.data.sources.source import CaptionSource, ReadsTexts
from blip2_train.data.stream.batch_sampler import GlobalBatchSampler
from blip2_train.data.stream.mixture import Mixture
from blip2_train.data.stream.read_ahead import StreamReadAhead
from blip2_train.data.text_cleaning import NOT_UNICODE, broken_texts, usable_texts, without_broken_marks
from blip2_train.errors import ShardError
from blip2_train.types import ImageTextSample, RejectedSample

Transform = Callable[[Image.Image, torch.Generator], Tensor]
ReadImage = Callable[[bytes, torch.Generator, int | None], Tensor]

ATTEMPTS = 50
"""Samples tried for one position before an error is raised."""


class WholeImages:
    """Decodes an image's file whole, and applies a transform.

    Args:
        transform: converts an RGB image to pixel values, with a generator.
    """

    def __init__(self, transform: Transform) -> None:
        self._transform = transform

    def __call__(self, content: bytes, generator: torch.Generator, orientation: int | None) -> Tensor:
        """Pixel values of a file; raises what `decode_image` raises."""
        return self._transform(decode_image(content, orientation=orientation), generator)


_EMPTY = torch.zeros(0)


def _no_image(content: bytes, generator: torch.Generator, orientation: int | None) -> Tensor:
    return _EMPTY


class TrainingStream(Dataset[ImageTextSample]):
    """The endless mixture of sources; item `position` is a pure function of (seed, position).

    An unusable sample is replaced by another of the same source, chosen by (seed, position, attempt), so that batches
    keep their size on every process; the sample carries the records of the rejected ones.

    Args:
        sources: sources of the mixture.
        transform: converts an RGB image to pixel values, with a generator.
        seed: determines order, mixture, captions and crops.
        shuffle_block: samples per block; blocks are permuted.
        shuffle_window: samples per window; samples are permuted inside a window.
        shuffle_captions: give each image a caption of another sample (negative control: nothing can be learnt).
        schedule: batches of this process in the whole run, so that remote storage is read ahead in their order; None =
            only the current batch is read ahead.
        read_image: converts the content of an image's file to pixel values, with a generator and the orientation
            stored beside it; None = decode the whole image and apply `transform`.
    """

    def __init__(
        self,
        sources: Sequence[TrainingSource],
        transform: Transform,
        seed: int,
        *,
        shuffle_block: int = 256,
        shuffle_window: int = 16384,
        shuffle_captions: bool = False,
        schedule: GlobalBatchSampler | None = None,
        read_image: ReadImage | None = None,
    ) -> None:
        self._sources = list(sources)
        self._read_image = read_image or WholeImages(transform)
        self._seed = seed
        self._shuffle_captions = shuffle_captions
        self.mixture = Mixture([source.weight for source in sources], seed)
        """The source of each position."""
        self._orders = [
            SampleOrder(size=len(s), seed=seed, name=s.source.name, block=shuffle_block, window=shuffle_window)
            for s in sources
        ]
        self._ahead = StreamReadAhead(self._sources, self._orders, self.mixture, schedule)

    def __getitem__(self, position: int) -> ImageTextSample:
        source, kept_index = self._at(position)
        rejected: list[RejectedSample] = []
        for attempt in range(ATTEMPTS):
            generator = self._generator(position, attempt)
            if attempt:
                kept_index = stable_seed("replacement", self._seed, position, attempt) % len(source)
            index = source.sample_index(kept_index)
            try:
                record = source.source.read(index)
                captions = (
                    self._captions_of_another(source, kept_index, generator)
                    if self._shuffle_captions
                    else record.captions
                )
                return training_sample(
                    record,
                    source.source.sample_location(index),
                    self._read_image,
                    generator,
                    captions=captions,
                    first_captions=source.first_captions,
                    rejected=rejected,
                )
            except UnusableSample as problem:
                rejected.append(rejection(source.source, index, problem))
        raise unusable_source_error(source.source.name, rejected)

    def _at(self, position: int) -> tuple[TrainingSource, int]:
        """The source that serves a position, and the index of the sample among those that are not held out."""
        chosen, served_before = self.mixture.source_at(position)
        source, order = self._sources[chosen], self._orders[chosen]
        return source, order.sample_at(*divmod(served_before, len(source)))

    def _generator(self, position: int, attempt: int) -> torch.Generator:
        return torch.Generator().manual_seed(stable_seed("sample", self._seed, position, attempt))

    def texts(self, positions: Sequence[int]) -> list[ImageTextSample | None]:
        """The samples at some positions with an empty image; None where the first choice has no usable text.

        Needs sources that are `ReadsTexts`.

        Raises:
            ShardError: if a text cannot be read. A fault of the text itself is the same on every process; a fault of a
                disk or of one machine's copy is not, and processes that disagree would repeat and lose samples.
        """
        samples: list[ImageTextSample | None] = []
        for position in positions:
            source, kept_index = self._at(position)
            index, reader = source.sample_index(kept_index), cast("ReadsTexts", source.source)
            try:
                record = reader.read_texts(index)
                sample = training_sample(
                    record,
                    source.source.sample_location(index),
                    _no_image,
                    self._generator(position, 0),
                    captions=record.captions,
                    first_captions=source.first_captions,
                )
            except UnreadableShard as problem:
                location = source.source.sample_location(index)
                raise ShardError(
                    f"{location.file}: the text of {location.key} cannot be read ({problem.reason}: {problem.detail}), "
                    "and batches of like length need the same texts on every process; repair the shard, or set "
                    "data.batches_of_like_length to null in a new run"
                ) from None
            except UnusableSample:
                sample = None
            samples.append(sample)
        return samples

    def _captions_of_another(
        self, source: TrainingSource, kept_index: int, generator: torch.Generator
    ) -> tuple[str, ...]:
        """The captions of a random sample other than the one at `kept_index`."""
        step = 1 + int(torch.randint(max(len(source) - 1, 1), (), generator=generator))
        return source.source.read(source.sample_index((kept_index + step) % len(source))).captions

    def __getitems__(self, positions: Sequence[int]) -> list[ImageTextSample]:
        """The samples at several positions; remote ones are fetched in advance."""
        self._ahead.begin(positions)
        return [self[position] for position in positions]


class EvaluationItems(Dataset[ImageTextSample]):
    """Chosen samples with their first captions, always the same.

    An unusable sample is replaced by the next usable one, which then comes twice (with the same `sample_id`).

    Args:
        samples: pairs of a source and the indices to take from it.
        transform: deterministic transform.
        captions_per_image: items per image; item j shows caption `j % captions_per_image` (counted modulo the
            number of captions the image has).
        read_image: see `TrainingStream`.
    """

    def __init__(
        self,
        samples: Sequence[tuple[CaptionSource, NDArray[np.int64]]],
        transform: Transform,
        captions_per_image: int = 1,
        read_image: ReadImage | None = None,
    ) -> None:
        self._samples = list(samples)
        self._ends = np.cumsum([len(indices) for _, indices in samples])
        self._images = sum(len(indices) for _, indices in samples)
        self._read_image = read_image or WholeImages(transform)
        self._captions = captions_per_image

    def __len__(self) -> int:
        return self._images * self._captions

    def __getitem__(self, item: int) -> ImageTextSample:
        images = self._images
        first, caption = divmod(item, self._captions)
        rejected: list[RejectedSample] = []
        for attempt in range(min(ATTEMPTS, images)):
            image = (first + attempt) % images
            chosen = int(np.searchsorted(self._ends, image, side="right"))
            source, indices = self._samples[chosen]
            index = int(indices[image - (int(self._ends[chosen]) - len(indices))])
            try:
                record = source.read(index)
                captions = usable_captions(record, record.captions)
                caption_index, text = captions[caption % len(captions)]
                return record.sample(
                    pixel_values=_pixel_values(
                        record, source.sample_location(index), self._read_image, torch.Generator()
                    ),
                    caption=text,
                    image_id=record.image_id,
                    sample_id=_sample_id(source.sample_location(index), caption_index),
                    references=tuple(map(without_broken_marks, record.captions)),
                    uniform=stable_seed("evaluation item", item) % 1000 / 1000,
                    rejected=(*rejected, *dropped_captions(source, index, record.captions)),
                )
            except UnusableSample as problem:
                rejected.append(rejection(source, index, problem))
        raise unusable_source_error(self._samples[0][0].name, rejected)


def usable_captions(record: Record, captions: Sequence[str]) -> list[tuple[int, str]]:
    """Index and cleaned text of each usable caption, see `usable_texts`.

    Raises:
        UnusableSample: if there is none.
    """
    return usable_texts(captions, record.cleaned)


def training_sample(
    record: Record,
    location: SampleLocation,
    read_image: ReadImage,
    generator: torch.Generator,
    *,
    captions: Sequence[str],
    first_captions: int | None = None,
    rejected: Sequence[RejectedSample] = (),
) -> ImageTextSample:
    """A training sample of a record: one of its captions, and pixel values of a crop, both drawn from the generator.

    Args:
        record: as stored in the data.
        location: location of the record.
        read_image: see `TrainingStream`.
        generator: generator of every random choice.
        captions: captions to choose from: the record's own, or another sample's.
        first_captions: choose among this many; all if None.
        rejected: records of samples that were rejected before.

    Raises:
        UnusableSample: if no caption can be used, or the image cannot be read.
    """
    offered = captions[:first_captions]
    usable = usable_captions(record, offered)
    caption_index, text = usable[int(torch.randint(len(usable), (), generator=generator))]
    return record.sample(
        pixel_values=_pixel_values(record, location, read_image, generator),
        caption=text,
        image_id=record.image_id,
        sample_id=_sample_id(location, caption_index),
        references=tuple(map(without_broken_marks, captions)),
        uniform=float(torch.rand((), generator=generator)),
        rejected=(*rejected, *_dropped_captions(location, offered)),
    )


def _pixel_values(
    record: Record, location: SampleLocation, read_image: ReadImage, generator: torch.Generator
) -> Tensor:
    try:
        return read_image(record.image, generator, record.orientation)
    except ShardError as error:
        raise ShardError(f"{location.file}: {location.key}: {error}") from None


def dropped_captions(source: CaptionSource, index: int, captions: Sequence[str]) -> list[RejectedSample]:
    """A record of the captions that are not Unicode beside usable ones; empty if there is none."""
    return _dropped_captions(source.sample_location(index), captions)


def _dropped_captions(location: SampleLocation, captions: Sequence[str]) -> list[RejectedSample]:
    broken = broken_texts(captions)
    return [rejection_at(location, UnusableSample(NOT_UNICODE, broken))] if broken else []


def _sample_id(location: SampleLocation, caption: int) -> str:
    return printable_name(f"{location.shard}/{location.key}#{caption}")


def rejection(source: CaptionSource, index: int, problem: UnusableSample) -> RejectedSample:
    """The record of an unusable sample."""
    return rejection_at(source.sample_location(index), problem)


def rejection_at(location: SampleLocation, problem: UnusableSample) -> RejectedSample:
    """The record of an unusable sample, from its location."""
    detail = f"{location.row}: {problem.detail}" if location.row else problem.detail
    file, key, detail = map(printable_name, (location.file, location.key, detail))
    return RejectedSample(source=file, key=key, reason=problem.reason, detail=detail)


def unusable_source_error(source: str, rejected: Sequence[RejectedSample]) -> ShardError:
    """The error that ends a run if too many samples of a source in a row are unusable."""
    last = rejected[-1]
    return ShardError(
        f"{len(rejected)} samples in a row of source {source!r} could not be used, the last being "
        f"{last.source}/{last.key} ({last.reason}: {last.detail}); check the data"
    )
