"""The plan of a run with sequential reading, in which sample counts are unknown before the samples are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from blip2_train.data.sequential.batches import StreamShape
from blip2_train.data.sequential.source import SequentialSource
from blip2_train.data.stream.plan import ImageBytes, readable_size, waiting_bytes


@dataclass(frozen=True, kw_only=True)
class SequentialPlan:
    """Everything that determines what a run reads with `data.access=sequential`."""

    sources: Sequence[SequentialSource]
    shape: StreamShape
    validation_samples: int
    held_out: int
    """Validation samples that were taken from a training source."""
    steps: int
    first_step: int
    workers: int
    """Reading processes per training process."""
    image_bytes: ImageBytes
    passes: Callable[[], dict[str, float]]
    """Passes over each source so far, of this process's streams."""

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the images of all batches that a process can hold, with the one it trains on."""
        return waiting_bytes(self.shape.batches.micro_batch_size, self.image_bytes, self.workers)

    def epochs_at(self, step: int) -> dict[str, float]:
        """Passes over each source so far, counted in shards; those of earlier steps are not known."""
        return {f"data/epochs_{name}": passes for name, passes in self.passes().items()}

    def account(self, step: int) -> list[str]:
        """What the run drew, one line per source."""
        return [f"{name}: {passes:.2f} epochs, counted in shards" for name, passes in self.passes().items()]

    def summary(self) -> list[str]:
        """The plan in two lines."""
        sources = "; ".join(f"{one.name}: {len(one.shards):,} shards, one after the other" for one in self.sources)
        return [
            f"data: {sources}; validation: {self.validation_samples:,} samples",
            self.shape.batches.line(self.steps),
        ]

    def lines(self) -> list[str]:
        """The plan as text, one line per fact."""
        shape, batches = self.shape, self.shape.batches
        total = sum(source.weight for source in self.sources)
        lines = []
        for source in self.sources:
            unusable = Counter(sample.reason for sample in source.rejected)
            share = f", {100 * source.weight / total:.4g} % of the mixture" if len(self.sources) > 1 else ""
            size = readable_size(sum(source.sizes))
            lines.append(
                f"{source.name}: {len(source.shards):,} shards ({size}), read one after the other{share}; "
                "their sample count is not known in advance"
                + "".join(f"; {count} {reason}" for reason, count in unusable.items())
            )
        held = self.sources[0].held_out
        origin = f" (of {held}, which is not trained on)" if held is not None else ""
        lines.append(f"validation: {self.validation_samples:,} samples{origin}")
        lines.append(
            f"batch: {batches.global_batch_size:,} samples a step = {batches.world_size} processes x "
            f"{batches.accumulate} micro-batches x {batches.micro_batch_size}; {self.workers} readers per process"
        )
        lines.append(f"steps: {self.steps:,} = {self.steps * batches.global_batch_size:,} samples")
        lines.append(
            f"streams: {batches.world_size} x {shape.streams}, each with a shuffle buffer of {shape.buffer:,} samples; "
            f"batches in memory: at most {readable_size(self.waiting_bytes)} per process"
        )
        if self.first_step:
            lines.append(
                f"resumed at step {self.first_step:,} of {self.steps:,}: only the shards that the buffers draw from "
                "are read again"
            )
        return lines
