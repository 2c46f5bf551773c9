"""The records of a source of images with texts, and the protocols of sources."""

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
    """An image with captions as it lies in the data."""

    image: bytes
    """Content of the image's file."""
    captions: tuple[str, ...]
    """At least one, as written."""
    image_id: int
    """Equal for samples that show the same image; fits int64."""
    orientation: int | None = None
    """EXIF's number of how the image lies, where something beside its file says so; see `decode_image`."""

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
    """A question about an image as it lies in the data; its captions are the answers, one for each person."""

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
    """Where a sample lies."""

    file: str
    """Path of the shard or annotation file."""
    shard: str
    """The same without what depends on the machine: path below the source's folder, without extension."""
    key: str
    """Key inside the shard, or path of the image."""
    row: str = ""
    """Row of an annotation file, for people: `line 12`."""


class CaptionSource(Protocol):
    """Images with captions, reached by number."""

    name: str
    rejected: tuple[RejectedSample, ...]
    """What was found unusable before anything was read."""
    size: int
    """Bytes of the files that hold the samples."""
    files: int
    """Shards, or annotation files."""

    def __len__(self) -> int: ...

    def sample_location(self, index: int) -> SampleLocation:
        """Where sample `index` lies."""
        ...

    def read(self, index: int) -> Record:
        """Read sample `index`, 0 … `len - 1`; raises `UnusableSample`."""
        ...

    def fingerprint(self) -> str:
        """A short text that changes when a number would stand for another sample."""
        ...


@runtime_checkable
class ReadsAhead(Protocol):
    """A source that can be told what will be read next."""

    reads_ahead: bool
    """Whether that is of use: its samples lie on remote storage."""

    def read_ahead(self, indices: Sequence[int]) -> None:
        """Ask for the samples with these numbers, all at once."""
        ...


@runtime_checkable
class FollowsOrder(ReadsAhead, Protocol):
    """A source that can be told the order in which all of it will be read."""

    def follow(self, passages: Iterable[Sequence[int]], share: float = 1.0) -> None:
        """Fetch samples in this order, before they are read; what was announced before is over.

        Args:
            passages: numbers of samples, in order, made as they are needed; those of a passage lie close together.
            share: of the memory for that, 0 … 1.
        """
        ...


def supports_read_ahead(source: CaptionSource) -> TypeGuard[ReadsAhead]:
    """Whether a source is faster when it is told what will be read next."""
    return isinstance(source, ReadsAhead) and source.reads_ahead


class PairSource(CaptionSource, Protocol):
    """Images with captions, and what else is known of them."""

    def details(self, index: int) -> dict[str, Any]:
        """Entries for the record of sample `index`, as JSON holds them; `image_id` and `url` among them if known."""
        ...
