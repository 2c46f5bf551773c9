"""Images with captions in Parquet files, which hold the images' paths or the images themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np

from blip2_train.data.annotations.annotated_images import embedded_image, is_embedded
from blip2_train.data.annotations.columns import CAPTIONS, IMAGES, Columns, find_column, listed
from blip2_train.data.annotations.entry import listed_texts, short_repr
from blip2_train.data.annotations.parquet_rows import open_parquet
from blip2_train.data.order import stable_seed
from blip2_train.data.printable_names import names_digest
from blip2_train.data.record import Record, SampleLocation
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.sources.annotation_source import identity_of
from blip2_train.data.sources.image_folders import open_images
from blip2_train.data.storage.remote import AnyFile, RemoteFile, Storage, is_remote
from blip2_train.errors import ShardError
from blip2_train.types import RejectedSample

_IMAGES, _CAPTIONS = (*IMAGES, "jpg", "png", "webp", "bytes"), (*CAPTIONS, "txt")
_BESIDE_SHARDS = {"key", "status", "sha256"}
_ROWS = 64
"""Rows that a process holds in memory."""


class ParquetSource:
    """Rows of Parquet files, each an image with its captions.

    The image is a path, the content of a file (as such or as base64), or both as `{"bytes", "path"}` (the layout of
    Hugging Face's data sets). The caption is a text or a list of texts; `image_id` and `url` are kept where there are
    such columns. Reading is fast in the order of the rows only: a row is reached from the start of its row group.

    Args:
        files: Parquet files with the same columns.
        images: folder that paths start from, or a glob of several; None = that of the first file.
        name: name of the source in plans and records.
        columns: where their names are not the usual ones.

    Raises:
        ConfigError: if pyarrow is not installed.
        ShardError: if a file cannot be read or lacks a column, or there is no row.
    """

    rejected: tuple[RejectedSample, ...] = ()

    def __init__(
        self,
        files: Sequence[AnyFile],
        images: str | None,
        name: str,
        columns: Columns | None = None,
    ) -> None:
        self.name, self.files = name, len(files)
        self._paths = list(files)
        self._sizes = [path.size if isinstance(path, RemoteFile) else path.stat().st_size for path in self._paths]
        self.size = sum(self._sizes)
        self._folders = open_images(str(self._paths[0].parent) if images is None else images)
        opened = [open_parquet(path) for path in self._paths]
        there, columns = opened[0].schema_arrow.names, columns or Columns()
        self._image = _image_column(self._paths[0], there, columns.image)
        self._caption = find_column(self._paths[0], there, columns.caption, _CAPTIONS, "caption_column")
        self._id = columns.id or "image_id"
        if columns.id is not None:
            find_column(self._paths[0], there, columns.id, (), "id_column")
        details = [name for name in (self._id, "url") if name in there]
        self._columns = list(dict.fromkeys([self._image, self._caption, *details]))
        for path, file in zip(self._paths, opened, strict=True):
            if lacking := set(self._columns) - set(file.schema_arrow.names):
                raise ShardError(f"{path} has no column {min(lacking)!r}, but {self._paths[0]} has; give like files")
        rows = [file.metadata.row_group(group).num_rows for file in opened for group in range(file.num_row_groups)]
        self._groups = [
            (file_index, group) for file_index, file in enumerate(opened) for group in range(file.num_row_groups)
        ]
        self._group_ends = np.cumsum(rows, dtype=np.int64)
        self._file_ends = np.cumsum([file.metadata.num_rows for file in opened], dtype=np.int64)
        if not len(self):
            raise ShardError(f"{self._paths[0]} has no rows; expected one for each image")
        self._cursor: _RowGroup | None = None
        self._damaged: dict[int, tuple[int, str]] = {}
        """By row group: index of the first row that cannot be read, and the reason."""

    def __len__(self) -> int:
        return int(self._file_ends[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cursor": None}

    def sample_location(self, index: int) -> SampleLocation:
        """The location of row `index`; its key is its row in its file, from 0."""
        file = int(np.searchsorted(self._file_ends, index, side="right"))
        row = index - (int(self._file_ends[file - 1]) if file else 0)
        return SampleLocation(str(self._paths[file]), self._paths[file].stem, str(row), f"row {row}")

    def read(self, index: int) -> Record:
        """Read row `index`.

        Raises:
            UnusableSample: if the row cannot be read, its image is missing, or it has no caption.
        """
        row = self._row(index)
        captions = self._texts(row[self._caption])
        known = row.get(self._id)
        location = self.sample_location(index)
        identity = (
            stable_seed(self.name, location.shard, location.key) if known is None else identity_of(known, self.name)
        )
        return Record(image=self._content(row[self._image]), captions=captions, image_id=identity)

    def details(self, index: int) -> dict[str, Any]:
        """The `image_id`, the `url` and the image's `path` of row `index`, where it has them."""
        row = self._row(index)
        known: dict[str, Any] = {} if row.get("url") is None else {"url": row["url"]}
        if row.get(self._id) is not None:
            known["image_id"] = identity_of(row[self._id], self.name)
        image = row[self._image]
        path = image.get("path") if isinstance(image, dict) else image
        return known | ({"path": path} if isinstance(path, str) and not is_embedded(path) else {})

    def fingerprint(self) -> str:
        """Hash of the files' names, sizes and row counts, in order."""
        files = zip(self._paths, self._sizes, self._file_ends, strict=True)
        parts = [f"{path.name}:{size}:{end}" for path, size, end in files]
        return names_digest(parts)

    def _content(self, value: Any) -> bytes:
        """The image that a cell holds or names."""
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return value
        if not isinstance(value, str):
            raise UnusableSample("missing image", f"{self._image} holds neither a path nor a file's content")
        return embedded_image(value) if is_embedded(value) else self._folders.read(value)

    def _texts(self, value: Any) -> tuple[str, ...]:
        """The captions that a cell holds."""
        if isinstance(value, str):
            value = [value] if (listed := listed_texts(value)) is None else listed
        texts = [one for one in value if one is not None] if isinstance(value, list) else []
        if not texts or not all(isinstance(one, str) for one in texts):
            raise UnusableSample("missing text", f"{self._caption} is {short_repr(value)}, no text or list of texts")
        return tuple(texts)

    def _row(self, index: int) -> dict[str, Any]:
        """Values of a row by column."""
        group = int(np.searchsorted(self._group_ends, index, side="right"))
        damaged_from, reason = self._damaged.get(group, (index + 1, ""))
        if index >= damaged_from:
            raise UnusableSample("unreadable rows", reason)
        if self._cursor is None or self._cursor.group != group or index < self._cursor.start:
            file, inner = self._groups[group]
            start = int(self._group_ends[group - 1]) if group else 0
            self._cursor = _RowGroup(self._paths[file], inner, self._columns, group, start)
        try:
            return self._cursor.row(index)
        except (OSError, ValueError) as error:  # pyarrow's errors are of both kinds
            self._damaged[group] = self._cursor.end, f"{type(error).__name__}: {error}"
            self._cursor = None
            raise UnusableSample("unreadable rows", str(error)) from None


class _RowGroup:
    """Reads a row group forwards, a batch of rows at a time."""

    def __init__(self, path: AnyFile, inner: int, columns: Sequence[str], group: int, start: int) -> None:
        self.group = group
        """Index of the group among those of all files."""
        self.start = self.end = start
        """Indices of the first row that is held, and of the first row after those."""
        batches = open_parquet(path).iter_batches(_ROWS, row_groups=[inner], columns=list(columns))
        self._batches: Iterator[Any] = iter(batches)
        self._columns: dict[str, Any] = {}

    def row(self, index: int) -> dict[str, Any]:
        """Values of row `index`, which must not lie before the rows that are held."""
        while index >= self.end:
            batch = next(self._batches)
            self._columns = dict(zip(batch.schema.names, batch.columns, strict=True))
            self.start, self.end = self.end, self.end + batch.num_rows
        return {name: column[index - self.start].as_py() for name, column in self._columns.items()}


def parquet_files(path: str | Sequence[str]) -> Sequence[AnyFile]:
    """The Parquet files that a file, a glob, or a folder without tar shards stands for; empty if it stands for none."""
    if not isinstance(path, str):
        return [file for item in path for file in parquet_files(item)]
    if is_remote(path):
        return _remote_parquet_files(path)
    location = Path(path).expanduser()
    if location.is_dir():
        return [] if any(location.glob("*.tar")) else sorted(location.glob("*.parquet"))
    if location.suffix.lower() != ".parquet":
        return []
    if location.is_file():
        return [location]
    if not (files := [Path(name) for name in sorted(glob(str(location), recursive=True))]):
        raise ShardError(f"there is no file {path}; give a Parquet file, or a glob in quotes")
    return files


def _remote_parquet_files(url: str) -> Sequence[AnyFile]:
    try:
        files = Storage().find(url)
    except OSError as error:
        raise ShardError(f"{url} cannot be listed: {error.strerror or error}") from None
    shards = any(file.suffix == ".tar" for file in files)
    return [] if shards else [file for file in files if file.suffix.lower() == ".parquet"]


def _image_column(file: AnyFile, columns: Sequence[str], chosen: str | None) -> str:
    if chosen is None and {*columns} >= _BESIDE_SHARDS and not {*_IMAGES} & {*columns}:
        raise ShardError(
            f"{file} has no column {' or '.join(map(repr, _IMAGES))}; it only describes images in tar shards or "
            f"folders, give these; its columns are {listed(columns)}: pass picture_column=<column>"
        )
    return find_column(file, columns, chosen, _IMAGES, "picture_column")
