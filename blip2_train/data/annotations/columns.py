"""The roles of columns of a table, or keys of an entry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from blip2_train.data.annotations.entry import short_repr
from blip2_train.data.storage.remote import AnyFile
from blip2_train.errors import ShardError

DOWNLOAD = "download the images with img2dataset first, and give the tar shards that it writes as source"
IMAGES = ("image", "filepath", "file_name", "filename", "image_path", "image_name")
CAPTIONS = ("caption", "text", "captions", "comment")
QUESTIONS = ("question", "text")
ANSWERS = ("answers", "answer", "direct_answers", "multiple_choice_answer")
_CONVERSATIONS = (
    "{} holds conversations (LLaVA's layout), not captions or questions; what can be read has a caption of its own, "
    '[{{"image": …, "caption": …}}], or a question with its answer, [{{"image": …, "question": …, "answer": …}}]'
)
_ADDRESSES = ("url", "urls", "image_url", "image_urls")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The chosen columns or keys; None = one of the usual names."""

    image: str | None = None
    """Path of the image: one of `IMAGES`."""
    caption: str | None = None
    """A caption or a list of them: one of `CAPTIONS`."""
    question: str | None = None
    """One of `QUESTIONS`."""
    answer: str | None = None
    """An answer or a list of them: one of `ANSWERS`."""
    id: str | None = None
    """The identity of an image (`image_id`) or a question (`question_id`)."""


def find_column(
    file: AnyFile | Path, columns: Sequence[str], chosen: str | None, usual: Sequence[str], option: str
) -> str:
    """The column of a role.

    Args:
        file: for messages.
        columns: columns of the file.
        chosen: the required column; None = a usual one.
        usual: usual names of a column of this role, the likeliest first.
        option: the option that sets the column, for messages: `data.caption_column`.

    Raises:
        ShardError: if there is none, with the file's columns, or with the reason if the file is of a known kind that
            cannot be read.
    """
    column = next((name for name in ([chosen] if chosen else usual) if name in columns), None)
    if column is not None:
        return column
    if "conversations" in columns and not chosen:
        raise ShardError(_CONVERSATIONS.format(file))
    if "image" in usual and not chosen and lists_addresses(columns):
        raise ShardError(f"{file} lists addresses of images: {DOWNLOAD}")
    expected = repr(chosen) if chosen else " or ".join(map(repr, usual))
    raise ShardError(
        f"{file} has no column {expected}; its columns are {listed(columns)}: rename one, or pass {option}=<column>"
    )


def listed(columns: Sequence[str]) -> str:
    """Columns for a message: the first ones, each shortened, as a line without a header may hold whole images."""
    some = [short_repr(name) for name in columns[:30]]
    return ", ".join([*some, "…"] if len(columns) > len(some) else some)


def lists_addresses(columns: Sequence[str]) -> bool:
    """Whether columns, or the values of a first line without a header, belong to a list of images to download."""
    return any(name.lower() in _ADDRESSES or is_address(name) for name in columns)


def is_address(path: str) -> bool:
    """Whether the path of an image is a web address."""
    return path.startswith(("http://", "https://"))
