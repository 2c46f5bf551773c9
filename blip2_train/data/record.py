"""The records that sources return, and the locations of samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from PIL import Image

from blip2_train.data.batches.images import decode_image
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.text_cleaning import NOT_UNICODE, clean_answer, clean_caption, clean_question, is_unicode
from blip2_train.types import ImageTextSample, QuestionSample


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
