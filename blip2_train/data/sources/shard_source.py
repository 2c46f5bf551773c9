"""Images with captions in tar shards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from blip2_train.data.printable_names import names_digest, printable_name
from blip2_train.data.record import Record, SampleLocation
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.shards.index import open_catalog
from blip2_train.data.shards.index_rows import ShardRows
from blip2_train.data.shards.paths import find_shards
from blip2_train.data.shards.reader import ShardReader, span
from blip2_train.data.shards.sample_files import details_of, image_id_of, json_of, shard_record
from blip2_train.data.shards.shard_lists import read_shard_lists
from blip2_train.data.shards.tar import IMAGES, MORE_IMAGES
from blip2_train.data.storage.options import StorageOptions
from blip2_train.data.storage.prefetch import Span
from blip2_train.data.storage.remote import Storage
from blip2_train.data.storage.user_cache import index_folder
from blip2_train.errors import ShardError

_PROBES = 20
"""Samples whose keys are checked when a source with a caption key is opened."""


class ShardSource:
    """Tar shards in the layout of webdataset and img2dataset.

    The caption is the `"captions"` list of a sample's `.json`, else its `.txt`, else the `.json`'s `"caption"`, or the
    `.json` itself if it is a list of captions (CapFilt's layout, best first); or the value of another key, if one is
    chosen: a text, or a list of texts. Nulls in a list are skipped.

    Args:
        path: folder, glob, file, or list of these.
        name: name of the source in plans and records.
        folder: folder of the shard index; the user's cache folder if None.
        options: how remote storage is read, and how bad shards are handled.
        caption_key: key of the caption in the `.json`; None = as above.

    Raises:
        ShardError: if there is no shard, no usable sample in the shards, a bad shard with `bad_shards="stop"`, or no
            sample with the chosen key.
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
        shards = find_shards(path, self._storage)
        listed, missing = read_shard_lists(shards, self._storage)
        self._catalog, rejected = open_catalog(shards, folder or index_folder(), self._storage, listed)
        self._reader = ShardReader(self._catalog, self._storage)
        self._rows = ShardRows(self._catalog, self._storage)
        self.rejected = (*missing, *rejected)
        if self._storage.options.bad_shards == "stop":
            for sample in self.rejected:
                if not sample.key:  # a record of the shard itself
                    self._reader.refuse(sample.reason, f"{sample.source}: {sample.detail}")
        self.size, self.files = self._catalog.size, len(shards)
        if len(self) == 0:
            reasons = "; ".join(f"{s.source}: {s.reason} {s.key}".strip() for s in self.rejected[:3]) or "no members"
            members = f"; {self.rejected[0].detail}" if self.rejected else ""
            raise ShardError(
                f"no usable sample in {path} ({reasons}{members}): a sample is an image (.{' .'.join(IMAGES)} or "
                f".{' .'.join(MORE_IMAGES)}) with a .txt or .json of the same name"
            )
        if caption_key is not None:
            self._refuse_unknown_key(caption_key)

    def __len__(self) -> int:
        return int(self._catalog.ends[-1])

    def __getstate__(self) -> dict[str, Any]:
        """The state sent to readers, without rejected samples: the process that opened the source reports those."""
        return {**self.__dict__, "rejected": ()}

    def sample_location(self, index: int) -> SampleLocation:
        """The location of sample `index`."""
        shard, row = self._row(index)
        return SampleLocation(
            printable_name(str(self._catalog.shard(shard))), self._catalog.name(shard), row["key"].decode()
        )

    def read(self, index: int) -> Record:
        """Read sample `index` by its offsets.

        Raises:
            UnusableSample: if it can no longer be read from the shard, or its text holds no caption.
        """
        return self._record(index, with_image=True)

    def read_texts(self, index: int) -> Record:
        """The texts of sample `index` alone; raises what `read` raises."""
        return self._record(index, with_image=False)

    def _record(self, index: int, with_image: bool) -> Record:
        shard, row = self._row(index)
        content = self._reader.members(shard, row) if with_image else self._reader.members(shard, row, ["text", "json"])
        text, extra = (content(kind) if row[kind] >= 0 else None for kind in ("text", "json"))
        name, key = self._catalog.name(shard), row["key"].decode()
        image = partial(content, "picture") if with_image else bytes
        return shard_record(self.name, name, key, text, extra, image, self._caption_key)

    @property
    def reads_ahead(self) -> bool:
        """Whether `read_ahead` is faster: samples lie on remote storage."""
        return self._reader.remote

    def read_ahead(self, indices: Sequence[int]) -> None:
        """Fetch the samples that will be read next, all at once; samples fetched before and not read are dropped."""
        self.follow([indices])

    def follow(self, passages: Iterable[Sequence[int]], share: float = 1.0) -> None:
        """Fetch samples in the order in which they will be read, before they are read; replaces an earlier order.

        Args:
            passages: groups of sample indices, in order; the samples of a passage lie close together.
            share: share of the memory set in the options, 0 … 1.
        """
        self._reader.follow(map(self._spans, passages), share)

    def _spans(self, indices: Sequence[int]) -> list[Span]:
        """The byte spans of samples; missing shard indexes are fetched, several at a time."""
        shards = np.unique(np.searchsorted(self._catalog.ends, np.asarray(indices, dtype=np.int64), side="right"))
        self._rows.make_ready(shards.tolist())
        return [span(*self._row(index)) for index in indices]

    def details(self, index: int) -> dict[str, Any]:
        """Entries of sample `index`'s `.json` beside its captions and those that follow from its image's file."""
        shard, row = self._row(index)
        return details_of(self._reader.members(shard, row, ["json"])("json") if row["json"] >= 0 else None)

    def indices_by_image_id(self) -> dict[int, int]:
        """Index of a sample of each image, by the `"image_id"` of its `.json`."""
        indices: dict[int, int] = {}
        for index in range(len(self)):
            shard, row = self._row(index)
            if row["json"] >= 0:
                own = image_id_of(self._reader.members(shard, row, ["json"])("json"))
                indices |= {} if own is None else {own: index}
        return indices

    def fingerprint(self) -> str:
        """Hash of the shards' names and sample counts, in order, and of the caption key."""
        return names_digest([*self._catalog.contents(), *([] if self._caption_key is None else [self._caption_key])])

    def contents(self) -> dict[str, str]:
        """Hashes that change when a shard is replaced by one with as many samples, and stay the same when shards move.

        Not every source has all of them: the rows of remote shards with an `index.json` are not read.
        """
        hashed = {"sizes": self._catalog.sizes(), "rows": self._catalog.row_hashes()}
        return {what: names_digest(values) for what, values in hashed.items() if values}

    def _refuse_unknown_key(self, key: str) -> None:
        """Refuse a key that none of a few samples has."""
        keys: dict[str, None] = {}
        for index in range(0, len(self), max(1, len(self) // _PROBES)):
            shard, row = self._row(index)
            try:
                content = json_of(self._reader.members(shard, row, ["json"])("json")) if row["json"] >= 0 else None
            except UnusableSample:
                continue
            keys |= dict.fromkeys(content) if isinstance(content, dict) else {}
        if key not in keys:
            known = f"their keys are {', '.join(map(repr, keys))}" if keys else "they have no .json with keys"
            raise ShardError(
                f"no sample of source {self.name!r} has a caption under {key!r}; {known}: pass caption_column=<key>"
            )

    def _row(self, index: int) -> tuple[int, np.void]:
        """Index of a sample's shard, and the sample's row in the index of that shard."""
        ends = self._catalog.ends
        shard = int(np.searchsorted(ends, index, side="right"))
        return shard, self._rows.entry(shard, index - (int(ends[shard - 1]) if shard else 0))
