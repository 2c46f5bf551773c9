"""Which column of a table, or key of an entry, has which role."""

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
_CHATS = (
    "{} holds conversations (LLaVA's layout), not captions or questions; what can be read has a caption of its own, "
    '[{{"image": …, "caption": …}}], or a question with its answer, [{{"image": …, "question": …, "answer": …}}]'
)
_ADDRESSES = ("url", "urls", "image_url", "image_urls")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns or keys that were chosen; None = one of the usual names."""

    image: str | None = None
    """Path of the image: one of `IMAGES`."""
    caption: str | None = None
    """A caption or a list of them: one of `CAPTIONS`."""
    question: str | None = None
    """One of `QUESTIONS`."""
    answer: str | None = None
    """An answer or a list of them: one of `ANSWERS`."""
    id: str | None = None
    """What an image (`image_id`) or a question (`question_id`) is called."""


def find_column(
    file: AnyFile | Path, columns: Sequence[str], chosen: str | None, usual: Sequence[str], option: str
) -> str:
    """The column of a role.

    Args:
        file: for messages.
        columns: those that the file has.
        chosen: the one that must be there; None = a usual one.
        usual: names that a column of this role often has, the likeliest first.
        option: the option that chooses, for messages: `data.caption_column`.

    Raises:
        ShardError: if there is none, with the columns that there are, or with the reason if the file is of a known kind
            that cannot be read.
    """
    column = next((name for name in ([chosen] if chosen else usual) if name in columns), None)
    if column is not None:
        return column
    if "conversations" in columns and not chosen:
        raise ShardError(_CHATS.format(file))
    if "image" in usual and not chosen and lists_addresses(columns):
        raise ShardError(f"{file} lists addresses of images: {DOWNLOAD}")
    expected = repr(chosen) if chosen else " or ".join(map(repr, usual))
    raise ShardError(
        f"{file} has no column {expected}; its columns are {listed(columns)}: rename one, or pass {option}=<column>"
    )


def listed(columns: Sequence[str]) -> str:
    """Columns for a message: each cut, as a line without a header may hold whole images, and the first of many."""
    some = [short_repr(name) for name in columns[:30]]
    return ", ".join([*some, "…"] if len(columns) > len(some) else some)


def lists_addresses(columns: Sequence[str]) -> bool:
    """Whether columns, or the values of a first line that is no header, are those of a list of images to download."""
    return any(name.lower() in _ADDRESSES or is_address(name) for name in columns)


def is_address(path: str) -> bool:
    """Whether the path of an image is the address of one on the web."""
    return path.startswith(("http://", "https://"))
