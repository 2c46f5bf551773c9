"""A few samples as a source of any length."""

from __future__ import annotations

from dataclasses import dataclass

from blip2_train.data.record import Record, SampleLocation
from blip2_train.data.sources.config import SourceConfig, open_source
from blip2_train.data.sources.source import CaptionSource


class RepeatedSource:
    """A source that is as long as one likes: its samples come again and again under new numbers.

    Args:
        source: The samples.
        samples: How many there seem to be.
    """

    def __init__(self, source: CaptionSource, samples: int) -> None:
        self.name, self.rejected, self.size, self.files = source.name, source.rejected, source.size, source.files
        self._source, self._samples = source, samples
        self.readings = 0
        """Samples read so far."""

    def __len__(self) -> int:
        return self._samples

    def sample_location(self, number: int) -> SampleLocation:
        """Where it lies."""
        return self._source.sample_location(number % len(self._source))

    def read(self, number: int) -> Record:
        """Read it."""
        self.readings += 1
        return self._source.read(number % len(self._source))

    def fingerprint(self) -> str:
        """That of the samples."""
        return self._source.fingerprint()


@dataclass(frozen=True, kw_only=True)
class RepeatedConfig(SourceConfig):
    """Shards whose samples come as often as it takes."""

    samples: int
    """How many there seem to be."""

    def own_source(self) -> CaptionSource:
        """The source."""
        return RepeatedSource(open_source(SourceConfig(path=self.path, name=self.name)), self.samples)
