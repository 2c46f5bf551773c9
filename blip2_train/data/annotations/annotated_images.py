"""The images that an annotation file names, each put together from its rows when it is requested."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from blip2_train.data.annotations.entry import short_repr
from blip2_train.data.rejections import UnusableSample
from blip2_train.errors import ShardError

_STARTS = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "data:image/")
"""First characters of JPEG, PNG, GIF and WebP files in base64, and of a data URI."""


def is_embedded(text: str) -> bool:
    """Whether a text is an image file in base64 or a data URI, and not a path.

    Example:
        >>> is_embedded("data:image/png;base64,iVBORw0KGgo="), is_embedded("/9j/cat.jpg")
        (True, False)
    """
    return text.startswith(_STARTS) and "." not in text


def embedded_image(text: str) -> bytes:
    """The content of the image file that a text contains in base64.

    Raises:
        UnusableSample: if the base64 is damaged.
    """
    try:
        return base64.b64decode(text.rpartition(",")[2])
    except binascii.Error as error:
        raise UnusableSample("unreadable image", f"no base64: {error}") from None


_ANY = "surrogatepass"
"""JSON can hold surrogates, too; they are rejected where the text is used."""
_NOTE = np.dtype(
    [
        ("offset", "<i8"),
        ("row_number", "<u4"),
        ("split", "<u4"),
        ("captions", "<u4"),
        ("blank", "<u4"),
        ("image", "S16"),
        ("image_id", "S16"),
    ]
)
"""Notes on one entry, while the file is scanned: its offset, its row number for messages, and values to be compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedImage:
    """One image of an annotation file."""

    row: str = ""
    """Its row in the file, for messages: `line 12`, `entry 3`."""
    path: str
    """As written: absolute, or below the folder of the images; or the image itself, see `embedded_image`; empty if the
    file has no path."""
    captions: tuple[str, ...]
    """As written; may be empty."""
    image_id: int | str | None = None
    """As written."""
    split: str | None = None
    domain: str = ""
    """NoCaps' `in-domain`, `near-domain` or `out-domain`; empty in other sets."""
    counted: bool = False
    """Whether `image_id` only counts the images of this file (Karpathy's `imgid`), and differs in other files."""

    @property
    def identity(self) -> int | str:
        """The image's identity in predictions: its `image_id`; without one, its key."""
        return self.key if self.image_id is None else self.image_id

    @property
    def key(self) -> str:
        """The image's name in messages and lists: its path, or its row if it has no path."""
        return self.row if is_embedded(self.path) else self.path


class Entries(Protocol):
    """The entries of a file, each with values of one image."""

    def __iter__(self) -> Iterator[tuple[int, int, AnnotatedImage]]:
        """Offset, row number for messages, and content of each entry."""
        ...

    def read(self, offset: int, row_number: int) -> AnnotatedImage:
        """The entry at an offset; its row number is used in messages."""
        ...


class PackedImages:
    """Entries that are kept in memory as one text, not as objects.

    A forked process shares memory until it is written to, and reading a Python object writes its reference count: each
    reader and worker would get its own copy of a list.

    Args:
        images: the entries.
    """

    def __init__(self, images: Iterable[AnnotatedImage]) -> None:
        packed = [json.dumps(astuple(image), ensure_ascii=False).encode(errors=_ANY) for image in images]
        self._ends = np.cumsum([0, *map(len, packed)], dtype=np.int64)
        self._text = b"".join(packed)

    def __iter__(self) -> Iterator[tuple[int, int, AnnotatedImage]]:
        return ((offset, offset, self.read(offset, offset)) for offset in range(len(self._ends) - 1))

    def read(self, offset: int, row_number: int) -> AnnotatedImage:
        """The entry at index `offset`."""
        start, end = self._ends[offset : offset + 2].tolist()
        values = json.loads(self._text[start:end].decode(errors=_ANY))
        row, path, captions, image_id, split, domain, counted = values
        return AnnotatedImage(
            row=row,
            path=path,
            captions=tuple(captions),
            image_id=image_id,
            split=split,
            domain=domain,
            counted=counted,
        )


class HeldImages:
    """Entries that are kept in memory as objects, for repeated iteration.

    Args:
        entries: the entries.
    """

    def __init__(self, entries: Entries) -> None:
        self._entries = [entry for _, _, entry in entries]

    def __iter__(self) -> Iterator[tuple[int, int, AnnotatedImage]]:
        return ((offset, offset, entry) for offset, entry in enumerate(self._entries))

    def read(self, offset: int, row_number: int) -> AnnotatedImage:
        """The entry at index `offset`."""
        return self._entries[offset]


class AnnotatedImages:
    """Images of one split of a file, in the order of their first entries, each with the captions of all its entries.

    It keeps 16 bytes per entry and 8 per image; while the file is scanned, about 190 bytes per entry.

    Args:
        file: for messages.
        entries: entries of the file.
        split: split of the images, several joined by `+`; None for files without splits.
        together: whether entries with the same path and split are one image; else each entry is one image.

    Raises:
        ShardError: with the file, the row and what to do, if the split is missing, or images share an `image_id`.
    """

    def __init__(self, file: Path, entries: Entries, split: str | None, *, together: bool) -> None:
        self._file, self._entries = file, entries
        splits: dict[str | None, int] = {}
        notes = np.fromiter(_notes(entries, splits, together), _NOTE)
        notes = notes[np.isin(notes["split"], _chosen_splits(file, splits, split))]
        order, starts = _by_image(notes["image"])
        self._entries_by_image = np.stack([notes["offset"], notes["row_number"]], axis=1)[order]
        self._starts = np.append(starts, len(order))
        self._refuse_mixed_ids(notes["image_id"][order])
        self._refuse_shared_ids(notes["image_id"][order[starts]])
        captions, blank = (np.add.reduceat(notes[name][order], starts, dtype="<i8") for name in ("captions", "blank"))
        self.partly_blank: list[int] = np.flatnonzero((blank > 0) & (blank < captions)).tolist()
        """Indices of the images of which some captions, but not all, are blank."""
        known = notes["image"][order[starts]].tobytes() + captions.tobytes()
        self.fingerprint = hashlib.blake2b(known, digest_size=8).hexdigest()
        """Hash of the images' paths and caption counts."""

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __iter__(self) -> Iterator[AnnotatedImage]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, index: int) -> AnnotatedImage:
        """Image `index`, from 0."""
        first, *more = (self._entry(row) for row in range(self._starts[index], self._starts[index + 1]))
        return replace(first, captions=sum((row.captions for row in more), first.captions)) if more else first

    def _entry(self, row: int) -> AnnotatedImage:
        offset, row_number = self._entries_by_image[row].tolist()
        return self._entries.read(offset, row_number)

    def _refuse_mixed_ids(self, ids: NDArray[np.bytes_]) -> None:
        """Refuse an image whose entries have different identities; `ids` has one per entry, grouped by image."""
        lengths = np.diff(self._starts)
        for row in np.flatnonzero(ids != np.repeat(ids[self._starts[:-1]], lengths)):
            index = int(np.searchsorted(self._starts, row, side="right")) - 1
            other, first = self._entry(int(row)), self._entry(int(self._starts[index]))
            raise ShardError(
                f"{self._file}, {other.row}: {other.key} has image_id {short_repr(other.image_id)}, but "
                f"{short_repr(first.image_id)} on {first.row}; give an image one image_id"
            )

    def _refuse_shared_ids(self, ids: NDArray[np.bytes_]) -> None:
        """Refuse images with the same identity; `ids` has one per image."""
        order = np.argsort(ids, kind="stable")
        ordered = ids[order]
        for position in np.flatnonzero((ordered[1:] == ordered[:-1]) & (ordered[1:] != b"")):
            first, image = self[order[position]], self[order[position + 1]]
            if first.path == image.path:
                raise ShardError(
                    f"{self._file}, {image.row}: image {short_repr(image.image_id)} comes twice ({first.key}, "
                    f"{first.row}); remove one of the two"
                )
            raise ShardError(
                f"{self._file}, {image.row}: image_id {short_repr(image.image_id)} of {image.key} is that of "
                f"{first.key} ({first.row}); give each image its own, or leave image_id out"
            )


def _notes(entries: Entries, splits: dict[str | None, int], together: bool) -> Iterator[tuple[int | bytes, ...]]:
    """A `_NOTE` for each entry; splits are numbered in the order of their first entries."""
    for offset, row_number, entry in entries:
        split = splits.setdefault(None if entry.split is None else str(entry.split), len(splits))
        blank = sum(not text.strip() for text in entry.captions)
        image = _digest(f"{entry.path}\0{entry.split}{'' if together else offset}")
        image_id = b"" if entry.image_id in (None, "") else _digest(str(entry.image_id))
        yield offset, row_number, split, len(entry.captions), blank, image, image_id


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors=_ANY), digest_size=16).digest()


def _by_image(keys: NDArray[np.bytes_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the entries, grouped by key in the order of the first entries; and the start of each group."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    again = np.zeros(len(keys), dtype=bool)
    again[1:] = ordered[1:] == ordered[:-1]
    firsts = np.empty(len(keys), np.int64)
    firsts[order] = order[np.maximum.accumulate(np.where(again, 0, np.arange(len(keys))))]
    together = np.argsort(firsts, kind="stable")
    return together, np.flatnonzero(firsts[together] == together)


def _chosen_splits(file: Path, splits: dict[str | None, int], split: str | None) -> list[int]:
    """Numbers of the requested splits."""
    names = sorted(name for name in splits if name is not None)
    if split is None:
        if names:
            raise ShardError(f"{file} has the splits {_listed(names)}: choose with split, several joined by +")
        return [*splits.values()]
    if not names:
        raise ShardError(f"{file} has no splits: leave split {split!r} out")
    chosen = split.split("+")
    if lacking := [part for part in chosen if part not in names]:
        raise ShardError(f"{file} has no image of split {'+'.join(lacking)!r}; its splits are {_listed(names)}")
    return [splits[part] for part in chosen]


def _listed(splits: list[str]) -> str:
    """Names of splits in one line; of too many, the first ones."""
    short_repr = [" ".join(split.split())[:40] for split in splits[:10]]
    return ", ".join([*short_repr, "…"] if len(splits) > len(short_repr) else short_repr)
