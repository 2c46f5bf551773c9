"""The records that a source of images with texts returns, and the protocols of sources."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeGuard, runtime_checkable

from PIL import Image

from blip2_train.data.batches.images import decode_image
from blip2_train.data.sources.rejections import UnusableSample
from blip2_train.data.text_cleaning import NOT_UNICODE, clean_answer, clean_caption, clean_question, is_unicode
from blip2_train.types import ImageTextSample, QuestionSample, RejectedSample


@dataclass(frozen=True, kw_only=True)
class Record:
    """An image with captions, as stored in the data."""

    image: bytes
    """Content of the image's file."""
    captions: tuple[str, ...]
    """At least one, as written."""
    image_id: int
    """Equal for samples that show the same image; fits int64."""
    orientation: int | None = None
    """EXIF orientation of the image, if it is stored beside the image's file; see `decode_image`."""

    def decoded(self) -> Image.Image:
        """The image in mode RGB, upright; raises what `decode_image` raises."""
        return decode_image(self.image, orientation=self.orientation)

    def cleaned(self, caption: str) -> str:
        """A caption as it is trained on; may be empty."""
        return clean_caption(caption).strip()

    def sample(self, **values: Any) -> ImageTextSample:
        """The sample with these fields of `ImageTextSample`."""
        return ImageTextSample(**values)


@dataclass(frozen=True, kw_only=True)
class QuestionRecord(Record):
    """A question about an image, as stored in the data; its captions are the answers, one for each person."""

    question: str
    """As written."""
    question_id: int | str
    question_type: str

    def cleaned(self, caption: str) -> str:
        """An answer as it is trained on; may be empty."""
        return clean_answer(caption)

    def sample(self, **values: Any) -> QuestionSample:
        """The sample with these fields of `ImageTextSample`.

        Raises:
            UnusableSample: if the question is not Unicode.
        """
        if not is_unicode(self.question):
            raise UnusableSample(NOT_UNICODE, f"question {self.question[:80]!r}")
        question = clean_question(self.question).strip()
        own = {"question": question, "question_id": self.question_id, "question_type": self.question_type}
        return QuestionSample(**values, **own)  # type: ignore[arg-type]


class SampleLocation(NamedTuple):
    """The location of a sample."""

    file: str
    """Path of the shard or annotation file."""
    shard: str
    """The same on every machine: path below the source's folder, without extension."""
    key: str
    """Key inside the shard, or path of the image."""
    row: str = ""
    """Row of an annotation file, for messages: `line 12`."""


class CaptionSource(Protocol):
    """Images with captions, with random access by index."""

    name: str
    rejected: tuple[RejectedSample, ...]
    """Samples that were unusable when the source was opened."""
    size: int
    """Bytes of the files that hold the samples."""
    files: int
    """Shards, or annotation files."""

    def __len__(self) -> int: ...

    def sample_location(self, index: int) -> SampleLocation:
        """The location of sample `index`."""
        ...

    def read(self, index: int) -> Record:
        """Read sample `index`, 0 … `len - 1`; raises `UnusableSample`."""
        ...

    def fingerprint(self) -> str:
        """A short text that changes when an index would mean another sample."""
        ...


@runtime_checkable
class ReadsAhead(Protocol):
    """A source that can fetch samples before they are read."""

    reads_ahead: bool
    """Whether that is faster: its samples lie on remote storage."""

    def read_ahead(self, indices: Sequence[int]) -> None:
        """Fetch the samples with these indices, all at once."""
        ...


@runtime_checkable
class FollowsOrder(ReadsAhead, Protocol):
    """A source that can fetch all of its samples in the order in which they will be read."""

    def follow(self, passages: Iterable[Sequence[int]], share: float = 1.0) -> None:
        """Fetch samples in this order, before they are read; replaces an earlier order.

        Args:
            passages: lazy groups of sample indices, in order; the samples of a passage lie close together.
            share: share of the memory for that, 0 … 1.
        """
        ...


def supports_read_ahead(source: CaptionSource) -> TypeGuard[ReadsAhead]:
    """Whether a source is faster when samples are fetched before they are read."""
    return isinstance(source, ReadsAhead) and source.reads_ahead


class PairSource(CaptionSource, Protocol):
    """Images with captions and further fields, from which shards are made."""

    def details(self, index: int) -> dict[str, Any]:
        """Entries for the record of sample `index`, as JSON holds them; `image_id` and `url` among them if known."""
        ...
