"""What a run will read, in numbers for the reader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from blip2_train.data.batch_sampler import BatchShape
from blip2_train.data.mixture import Mixture
from blip2_train.data.training_source import TrainingSource


@dataclass(frozen=True, kw_only=True)
class SourcePlan:
    """One source's part of a run."""

    name: str
    files: int
    """Shards, or annotation files."""
    samples: int
    """Usable samples, without those held out."""
    rejected: dict[str, int]
    """What was found unusable before training, by reason."""
    drawn: int
    """Samples that the run draws."""
    bytes: int

    @property
    def epochs(self) -> float:
        """Passes over the source."""
        return self.drawn / self.samples


@dataclass(frozen=True, kw_only=True)
class DataPlan:
    """Everything that decides what a run reads."""

    sources: tuple[SourcePlan, ...]
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

    def lines(self) -> list[str]:
        """The plan as text, a line per fact."""
        lines = [
            f"{source.name}: {source.samples:,} samples in {source.files:,} file{'s' * (source.files != 1)} "
            f"({source.bytes / 1e6:,.1f} MB), {source.drawn:,} drawn = {source.epochs:.2f} epochs, "
            f"unusable: {', '.join(f'{n} {reason}' for reason, n in source.rejected.items()) or 'none'}"
            for source in self.sources
        ]
        origin = f" ({self.held_out:,} held out of the training sources)" if self.held_out else ""
        lines.append(f"validation: {self.validation_samples:,} samples{origin}")
        lines.append(
            f"batch: {self.shape.global_batch_size:,} samples a step = {self.shape.world_size} processes x "
            f"{self.shape.accumulate} micro-batches x {self.shape.micro_batch_size}; {self.workers} readers per process"
        )
        if self.first_step:
            lines.append(f"resumed at step {self.first_step:,} of {self.steps:,}: nothing is read again")
        return lines


def make_plan(
    sources: Sequence[TrainingSource],
    mixture: Mixture,
    shape: BatchShape,
    *,
    steps: int,
    first_step: int,
    validation_samples: int,
    workers: int,
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
                drawn=count,
                bytes=part.source.size,
            )
            for part, count in zip(sources, drawn, strict=True)
        ),
        validation_samples=validation_samples,
        held_out=sum(len(part.held_out) for part in sources),
        steps=steps,
        first_step=first_step,
        shape=shape,
        workers=workers,
    )
