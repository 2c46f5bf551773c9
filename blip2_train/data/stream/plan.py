"""The plan of a run's data: what the run reads in all, and what it has read at any step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from blip2_train.data.sources.holdout import TrainingSource
from blip2_train.data.sources.shard_source import ShardSource
from blip2_train.data.stream.batch_sampler import BatchShape
from blip2_train.data.stream.loader import PREFETCHED
from blip2_train.data.stream.mixture import Mixture


class ImageBytes(NamedTuple):
    """Bytes of an image in a batch."""

    waiting: int
    """In a batch that a reader has made."""
    in_use: int
    """In the batch that is trained on."""

    @classmethod
    def of_pixels(cls, image_size: int) -> ImageBytes:
        """Those of a square of so many pixels per side: levels wait, numbers of 32 bits are used."""
        return cls(3 * image_size**2, 12 * image_size**2)


@dataclass(frozen=True, kw_only=True)
class SourcePlan:
    """One source's part of a run."""

    name: str
    files: int
    """Shards, or annotation files."""
    samples: int
    """Usable samples, without those held out."""
    rejected: dict[str, int]
    """Counts of samples that were unusable before training, by reason."""
    share: float
    """Requested share of the mixture, 0 … 1."""
    drawn: int
    """Samples that the run draws."""
    bytes: int
    in_shards: bool
    """Whether the files hold the images too."""

    @property
    def epochs(self) -> float:
        """Passes over the source."""
        return self.drawn / self.samples

    @property
    def repeats(self) -> str:
        """How often the run draws the samples."""
        whole, more = divmod(self.drawn, self.samples)
        if whole == 0:
            return f"each at most once, {self.samples - self.drawn:,} never"
        times = "once" if whole == 1 else f"{whole:,} times"
        return f"each {times}" + (f", {more:,} once more" if more else "")

    def short_line(self, mixed: bool) -> str:
        """The source in few words; with `mixed`, with its share of the mixture."""
        share = f", {100 * self.share:.4g} % of the mixture" if mixed else ""
        unusable = "".join(f", {count} {reason}" for reason, count in self.rejected.items())
        return f"{self.name}: {self.samples:,} samples, {self.epochs:.2f} epochs{share}{unusable}"

    def line(self, mixed: bool) -> str:
        """One line of the plan; with `mixed`, it contains the share of the mixture."""
        share = f"{100 * self.share:.4g} % of the mixture, " if mixed else ""
        read = f", {readable_size(self.bytes * self.epochs)} read" if self.in_shards else ""
        size = readable_size(self.bytes)
        return (
            f"{self.name}: {self.samples:,} samples in {self.files:,} file{'s' * (self.files != 1)} "
            f"({size}), {share}{self.drawn:,} drawn = {self.epochs:.2f} epochs ({self.repeats}){read}, "
            f"unusable at opening: {', '.join(f'{n} {reason}' for reason, n in self.rejected.items()) or 'none'}"
        )


@dataclass(frozen=True, kw_only=True)
class DataPlan:
    """Everything that determines what a run reads."""

    sources: tuple[SourcePlan, ...]
    mixture: Mixture
    validation_samples: int
    held_out: int
    """Validation samples that were taken from the training sources."""
    steps: int
    """Optimiser steps of the run."""
    first_step: int
    """Steps done before."""
    shape: BatchShape
    workers: int
    """Reading processes per training process."""
    image_bytes: ImageBytes

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the images of all batches that a process can hold, with the one it trains on."""
        return waiting_bytes(self.shape.micro_batch_size, self.image_bytes, self.workers)

    def epochs_at(self, step: int) -> dict[str, float]:
        """Passes over each source in the first `step` optimiser steps, by log key."""
        return {f"data/epochs_{source.name}": drawn / source.samples for source, drawn in self._drawn_at(step)}

    def account(self, step: int) -> list[str]:
        """What the first `step` optimiser steps drew, one line per source."""
        total = max(1, step * self.shape.global_batch_size)
        lines = []
        for source, drawn in self._drawn_at(step):
            share_of_all = f", {100 * drawn / total:.4g} % of all (requested: {100 * source.share:.4g} %)"
            share = share_of_all if len(self.sources) > 1 else ""
            lines.append(f"{source.name}: {drawn:,} samples = {drawn / source.samples:.2f} epochs{share}")
        return lines

    def summary(self) -> list[str]:
        """The plan in two lines."""
        sources = "; ".join(source.short_line(mixed=len(self.sources) > 1) for source in self.sources)
        return [f"data: {sources}; validation: {self.validation_samples:,} samples", self.shape.line(self.steps)]

    def lines(self) -> list[str]:
        """The plan as text, one line per fact."""
        shape = self.shape
        lines = [source.line(mixed=len(self.sources) > 1) for source in self.sources]
        origin = f" ({self.held_out:,} held out of the training sources)" if self.held_out else ""
        lines.append(f"validation: {self.validation_samples:,} samples{origin}")
        lines.append(
            f"batch: {shape.global_batch_size:,} samples a step = {shape.world_size} processes x "
            f"{shape.accumulate} micro-batches x {shape.micro_batch_size}; {self.workers} readers per process"
        )
        lines.append(
            f"steps: {self.steps:,} = {self.steps * shape.global_batch_size:,} samples, none dropped: a batch "
            "continues from one epoch into the next"
        )
        lines.append(self._readers())
        if self.first_step:
            where = ", ".join(
                f"{s.name} at {drawn / s.samples:.2f} epochs" for s, drawn in self._drawn_at(self.first_step)
            )
            lines.append(f"resumed at step {self.first_step:,} of {self.steps:,}: nothing is read again; {where}")
        return lines

    def _readers(self) -> str:
        batches = self.steps * self.shape.accumulate
        memory = f"batches in memory: at most {readable_size(self.waiting_bytes)} per process"
        order = "sample indices are shuffled before reading"
        if self.workers == 0:
            return f"readers: none, each process reads its own {batches:,} micro-batches; {memory}; {order}"
        total = self.shape.world_size * self.workers
        return (
            f"readers: {self.shape.world_size} x {self.workers} = {total:,}, each makes "
            f"{-(-batches // self.workers):,} micro-batches, {PREFETCHED} ahead; {memory}; {order}"
        )

    def _drawn_at(self, step: int) -> list[tuple[SourcePlan, int]]:
        """Each source, and the number of samples that the first `step` optimiser steps draw from it."""
        drawn = self.mixture.served(step * self.shape.global_batch_size)
        return list(zip(self.sources, drawn, strict=True))


def waiting_bytes(micro_batch_size: int, image: ImageBytes, workers: int) -> int:
    """Bytes of the images of the batches that `workers` readers have made, and of the one in use."""
    return micro_batch_size * (image.in_use + PREFETCHED * workers * image.waiting)


def make_plan(
    sources: Sequence[TrainingSource],
    mixture: Mixture,
    shape: BatchShape,
    *,
    steps: int,
    first_step: int,
    validation_samples: int,
    workers: int,
    image_bytes: ImageBytes,
) -> DataPlan:
    """The plan of a run of `steps` optimiser steps."""
    drawn = mixture.served(steps * shape.global_batch_size)
    return DataPlan(
        sources=tuple(
            SourcePlan(
                name=part.source.name,
                files=part.source.files,
                samples=len(part),
                rejected=dict(Counter(sample.reason for sample in part.source.rejected)),
                share=share,
                drawn=count,
                bytes=part.source.size,
                in_shards=isinstance(part.source, ShardSource),
            )
            for part, share, count in zip(sources, mixture.shares, drawn, strict=True)
        ),
        mixture=mixture,
        validation_samples=validation_samples,
        held_out=sum(len(part.held_out) for part in sources),
        steps=steps,
        first_step=first_step,
        shape=shape,
        workers=workers,
        image_bytes=image_bytes,
    )


def readable_size(count: float) -> str:
    """A size in bytes as text, in decimal units from MB (10^6 bytes) on."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9)):
        if count >= scale:
            return f"{count / scale:,.1f} {unit}"
    return f"{count / 1e6:,.1f} MB"
