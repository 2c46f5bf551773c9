"""Which samples are held out for validation, and the sources of a training run without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from blip2_train.data.fingerprint import CONTENTS, Fingerprint
from blip2_train.data.order import permutation, stable_seed
from blip2_train.data.sources.config import SourceConfig, open_source, source_weights
from blip2_train.data.sources.source import CaptionSource


def choose_held_out(sizes: Sequence[int], count: int) -> list[NDArray[np.int64]]:
    """Indices of the samples to hold out of sources with `sizes` samples, at most a tenth of all.

    The choice depends on the sizes alone, so runs with other seeds are validated on the same samples.

    Returns:
        For each source, the sorted indices.
    """
    total = sum(sizes)
    count = min(count, total // 10)
    chosen: set[int] = set()
    draw = 0
    while len(chosen) < count:
        chosen.add(stable_seed("held out", total, draw) % total)
        draw += 1
    indices = np.sort(np.fromiter(chosen, dtype=np.int64, count=count))
    starts = np.cumsum([0, *sizes])
    return [indices[(indices >= a) & (indices < b)] - a for a, b in zip(starts[:-1], starts[1:], strict=True)]


def validation_problem(samples: int, processes: int) -> str | None:
    """Why `samples` are too few for `processes` that validate together; None if they are enough."""
    if samples == 0:
        return (
            "validation is on, but there is nothing to validate on: give data.validation, or data.holdout and "
            f"at least {10 * processes} samples (it takes at most a tenth of all), or pass validate_every=null"
        )
    if samples < processes:
        return (
            f"{samples} validation samples cannot be shared by {processes} processes: give data.validation, raise "
            "data.holdout (it takes at most a tenth of all samples), train in fewer processes, or pass "
            "validate_every=null"
        )
    return None


def evenly_chosen(size: int, count: int | None) -> NDArray[np.int64]:
    """Indices of at most `count` of `size` samples, in order: all if None, else a choice that depends on both alone."""
    if count is None or count >= size:
        return np.arange(size)
    return np.sort(permutation(size, "evaluation", count)[:count])


@dataclass(frozen=True, kw_only=True)
class TrainingSource:
    """A source without the samples that are held out, and its share in the mixture."""

    source: CaptionSource
    weight: float
    """In any unit."""
    held_out: NDArray[np.int64]
    """Sorted indices of samples that are never trained on."""
    first_captions: int | None = None
    """Choose among this many captions; all if None."""

    def __len__(self) -> int:
        return len(self.source) - len(self.held_out)

    def sample_index(self, kept_index: int) -> int:
        """The index in the source of a sample, by its index among those that are not held out."""
        skipped = np.searchsorted(self.held_out - np.arange(len(self.held_out)), kept_index, side="right")
        return kept_index + int(skipped)


def open_training_sources(configs: Sequence[SourceConfig], held_out: int) -> list[TrainingSource]:
    """Open every source, and hold `held_out` samples out of all together (at most a tenth).

    Raises:
        ConfigError: if the weights or names do not fit together.
        ShardError: if a source does not exist or holds no usable sample.
    """
    sources = [open_source(config) for config in configs]
    sizes = [len(source) for source in sources]
    weights, held_out_indices = source_weights(configs, sizes), choose_held_out(sizes, held_out)
    return [
        TrainingSource(source=source, weight=weight, held_out=chosen, first_captions=config.first_captions)
        for source, weight, chosen, config in zip(sources, weights, held_out_indices, configs, strict=True)
    ]


@runtime_checkable
class KnowsContents(Protocol):
    """A source that has hashes of its content, which differ between files with equally many samples."""

    def contents(self) -> dict[str, str]:
        """Hashes by the name of what is hashed."""
        ...


def sources_fingerprint(sources: Sequence[TrainingSource]) -> Fingerprint:
    """One entry per source, with its samples, shards and weight; and one with the names of the sources, in order."""
    entries: Fingerprint = {"data sources": ", ".join(part.source.name for part in sources)}
    for part in sources:
        contents = f"{len(part)} samples in {part.source.files} files, hash {part.source.fingerprint()}"
        entries[f"data source {part.source.name}"] = f"{contents}, weight {part.weight:g}"
        hashes = part.source.contents() if isinstance(part.source, KnowsContents) else {}
        entries |= {f"{CONTENTS}{what} in source {part.source.name}": value for what, value in hashes.items()}
    return entries
