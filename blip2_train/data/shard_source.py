"""Pictures with captions in tar shards."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blip2_train.data.names import names_digest, printable_name
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.sample_files import details_of, image_id_of, json_of, shard_record
from blip2_train.data.shard_index import index_folder, index_shards, open_rows
from blip2_train.data.shard_notes import read_notes
from blip2_train.data.shard_reader import ShardReader
from blip2_train.data.shards import MORE_PICTURES, PICTURES, Shard, list_shards
from blip2_train.data.source import Place, Record
from blip2_train.data.storage import RemoteFile, Storage
from blip2_train.data.storage_options import StorageOptions
from blip2_train.errors import ShardError

_PROBES = 20
"""Samples of which the keys are looked at when a source is opened that names one."""


class ShardSource:
    """Tar shards in the layout of webdataset and img2dataset.

    The caption is the `"captions"` list of a sample's `.json`, else its `.txt`, else the `.json`'s `"caption"`, or the
    `.json` itself if it is a list of captions (CapFilt's layout, best first); or what stands under another key of the
    `.json`, if one is chosen: a text, or a list of texts. Empty places (null) in a list are passed over.

    Args:
        path: folder, glob, file, or list of these.
        name: name of the source in plans and records.
        folder: where the shard index is kept; the user's cache folder if None.
        options: how remote storage is read, and what becomes of bad shards.
        caption_key: key of the caption in the `.json`; None = as above.

    Raises:
        ShardError: if there is no shard, or no usable sample in them, or one is bad and that is to stop the run, or no
            sample has the chosen key.
    """

    def __init__(
        self,
        path: str | Sequence[str],
        name: str,
        folder: Path | None = None,
        options: StorageOptions | None = None,
        caption_key: str | None = None,
    ) -> None:
        self.name, self._caption_key = name, caption_key
        self._storage = Storage(options)
        shards = list_shards(path, self._storage)
        self._names = _relative_names(shards)
        notes, missing = read_notes(shards, self._storage)
        self._index = index_shards(shards, folder or index_folder(), self._storage, notes)
        self._reader = ShardReader(shards, self._storage)
        self._ends = np.cumsum([index.samples for index in self._index])
        self.rejected = (*missing, *(sample for index in self._index for sample in index.rejected))
        if self._storage.options.bad_shards == "stop":
            for sample in self.rejected:
                if not sample.key:  # a record of the shard itself
                    self._reader.refuse(sample.reason, f"{sample.source}: {sample.detail}")
        self.size = sum(index.size for index in self._index)
        self.files = len(shards)
        self._rows: dict[int, NDArray[np.void]] = {}
        if len(self) == 0:
            reasons = "; ".join(f"{s.source}: {s.reason} {s.key}".strip() for s in self.rejected[:3]) or "no members"
            members = f"; {self.rejected[0].detail}" if self.rejected else ""
            raise ShardError(
                f"no usable sample in {path} ({reasons}{members}): a sample is a picture (.{' .'.join(PICTURES)} or "
                f".{' .'.join(MORE_PICTURES)}) with a .txt or .json of the same name"
            )
        if caption_key is not None:
            self._refuse_unknown_key(caption_key)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rows": {}}

    def locate(self, number: int) -> Place:
        """Where sample `number` lies."""
        shard, row = self._row(number)
        return Place(printable_name(str(self._index[shard].shard)), self._names[shard], row["key"].decode())

    def read(self, number: int) -> Record:
        """Read sample `number` by its offsets.

        Raises:
            UnusableSample: if the shard no longer gives it, or its text holds no caption.
        """
        shard, row = self._row(number)
        content = self._reader.members(shard, row)
        text, extra = (content(kind) if row[kind] >= 0 else None for kind in ("text", "json"))
        name, key = self._names[shard], row["key"].decode()
        return shard_record(self.name, name, key, text, extra, partial(content, "picture"), self._caption_key)

    @property
    def reads_ahead(self) -> bool:
        """Whether `read_ahead` is of use: samples lie on remote storage."""
        return self._reader.remote

    def read_ahead(self, numbers: Sequence[int]) -> None:
        """Ask for samples that will be read next, all at once."""
        self._reader.read_ahead([self._row(number) for number in numbers])

    def details(self, number: int) -> dict[str, Any]:
        """Entries of sample `number`'s `.json` that say more than its captions and its picture's file."""
        shard, row = self._row(number)
        return details_of(self._reader.members(shard, row, ["json"])("json") if row["json"] >= 0 else None)

    def numbers_by_image_id(self) -> dict[int, int]:
        """Number of a sample of each picture, by the `"image_id"` of its `.json`."""
        found: dict[int, int] = {}
        for number in range(len(self)):
            shard, row = self._row(number)
            if row["json"] >= 0:
                own = image_id_of(self._reader.members(shard, row, ["json"])("json"))
                found |= {} if own is None else {own: number}
        return found

    def fingerprint(self) -> str:
        """Hash of the shards' names and numbers of samples, in order, and of the key of the caption."""
        parts = [f"{name}:{index.samples}" for name, index in zip(self._names, self._index, strict=True)]
        return names_digest([*parts, *([] if self._caption_key is None else [self._caption_key])])

    def _refuse_unknown_key(self, key: str) -> None:
        """Refuse a key that no sample has, as far as a few of them tell."""
        found: dict[str, None] = {}
        for number in range(0, len(self), max(1, len(self) // _PROBES)):
            shard, row = self._row(number)
            try:
                content = json_of(self._reader.members(shard, row, ["json"])("json")) if row["json"] >= 0 else None
            except UnusableSample:
                continue
            found |= dict.fromkeys(content) if isinstance(content, dict) else {}
        if key not in found:
            known = f"their keys are {', '.join(map(repr, found))}" if found else "they have no .json with keys"
            raise ShardError(
                f"no sample of source {self.name!r} has a caption under {key!r}; {known}: pass caption_column=<key>"
            )

    def _row(self, number: int) -> tuple[int, np.void]:
        """Shard of a sample, and its row of that shard's index."""
        shard = int(np.searchsorted(self._ends, number, side="right"))
        if shard not in self._rows:
            index = self._index[shard]
            try:
                self._rows[shard] = open_rows(index, self._storage)
            except OSError as error:
                missing = f"the index of shard {index.shard} is gone ({error}): start again, it is rebuilt"
                raise ShardError(
                    missing if index.origin is None else f"{index.origin} cannot be read: {error}"
                ) from None
        rows = self._rows[shard]
        return shard, rows[number - (int(self._ends[shard]) - len(rows))]


def _relative_names(shards: Sequence[Shard]) -> list[str]:
    """Each shard's path below the folder that all share, without the extension; the same wherever that folder lies."""
    places = [_absolute(shard) for shard in shards]
    common = os.path.commonpath([place.parent for place in places])
    return [printable_name(place.relative_to(common).with_suffix("").as_posix()) for place in places]


def _absolute(shard: Shard) -> PurePosixPath:
    """A shard's path, of a remote one with the protocol and the bucket as folders."""
    if isinstance(shard, RemoteFile):
        return PurePosixPath("/" + shard.url.replace("://", "/"))
    return PurePosixPath(shard.absolute())
