"""Images in a folder with captions in an annotation file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from blip2_train.data.annotations.annotated_images import embedded_image, is_embedded
from blip2_train.data.annotations.captions import read_captions
from blip2_train.data.annotations.columns import Columns
from blip2_train.data.annotations.json_content import require_local
from blip2_train.data.order import stable_seed
from blip2_train.data.record import Record, SampleLocation
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.sources.image_folders import open_images
from blip2_train.data.storage.remote import Storage, is_remote
from blip2_train.data.storage.user_cache import local_copy
from blip2_train.errors import ShardError
from blip2_train.types import RejectedSample

_WHOLE = re.compile("[0-9]{1,19}")
_PROBES = 20
"""Images whose files are checked when a source is opened."""


class AnnotationSource:
    """Images of one annotation file, of any layout that `read_captions` reads; each with all its captions.

    A row may hold the image itself as base64 in place of its path.

    The identity of an image is its `image_id` (`cocoid`, COCO's `id`), so it is the same in every file of COCO;
    without one it follows from the path.

    Args:
        path: annotation file.
        images: folder that the file's paths start from, or a glob of several that are searched in turn (Visual
            Genome's `VG_100K*`); None = the file's own.
        split: which images, for files with splits: `train`, `val`, `test`, or several joined by `+` (COCO's training
            set is `train+restval`).
        name: name of the source in plans and records.
        columns: columns of the rows, where their names are not the usual ones.
        storage: how a remote file or folder is accessed.

    Raises:
        ShardError: if the file or the folder cannot be read, the layout is unknown, the split is empty, or no
            image is found in the folder.
    """

    def __init__(
        self,
        path: str,
        images: str | None,
        split: str | None,
        name: str,
        columns: Columns | None = None,
        storage: Storage | None = None,
    ) -> None:
        self.name = name
        self.files = 1
        require_local("annotation file", path)
        self._file = local_copy(path, storage)
        beside = path.rpartition("/")[0] if is_remote(path) else str(self._file.parent)
        self._folders = open_images(beside if images is None else images, storage)
        self._images = read_captions(self._file, split, columns)
        if not self._images:
            raise ShardError(f"{self._file} names no image; give a file with at least one")
        self._refuse_another_folder()
        self.rejected = tuple(self._blank_captions())
        self.size = self._file.stat().st_size

    def _refuse_another_folder(self) -> None:
        count = len(self._images)
        probes = [self._images[index] for index in range(0, count, max(1, count // _PROBES))]
        if not any(is_embedded(image.path) or self._folders.find(image.path) for image in probes):
            raise ShardError(
                f"{self._file}, {probes[0].row}: there is no image {self._folders}/{probes[0].path}, nor any other "
                f"of {len(probes)} checked; pass the folder that the file's paths start from (images=<folder>, in a "
                "recipe data.images=<folder>)"
            )

    def _blank_captions(self) -> Iterator[RejectedSample]:
        """Records of blank captions beside usable ones; an image with blank captions only is rejected when read."""
        for image in map(self._images.__getitem__, self._images.partly_blank):
            blank = [str(position) for position, text in enumerate(image.captions, 1) if not text.strip()]
            detail = f"{image.row}: caption {', '.join(blank)} of {len(image.captions)} is blank"
            yield RejectedSample(source=str(self._file), key=image.key, reason="blank caption", detail=detail)

    def __len__(self) -> int:
        return len(self._images)

    def sample_location(self, index: int) -> SampleLocation:
        """The location of image `index`."""
        image = self._images[index]
        return SampleLocation(str(self._file), self._file.stem, image.key, image.row)

    def read(self, index: int) -> Record:
        """Read image `index` with all its captions.

        Raises:
            UnusableSample: if the image is missing or has no caption.
        """
        record, path = self.read_texts(index), self._images[index].path
        return replace(record, image=embedded_image(path) if is_embedded(path) else self._folders.read(path))

    def read_texts(self, index: int) -> Record:
        """All captions of image `index`, without the image.

        Raises:
            UnusableSample: if it has no caption.
        """
        image = self._images[index]
        if not image.captions:
            raise UnusableSample("missing text", "no caption")
        return Record(image=b"", captions=image.captions, image_id=self._identity(index))

    def fingerprint(self) -> str:
        """Hash of the images' paths and of how many captions each has."""
        return self._images.fingerprint

    def details(self, index: int) -> dict[str, Any]:
        """The identity of image `index`: all that is known beside its captions."""
        return {"image_id": self._identity(index)}

    def _identity(self, index: int) -> int:
        image = self._images[index]
        if image.image_id in (None, "") or image.counted:
            return stable_seed(self.name, image.path)
        return identity_of(str(image.image_id), self.name)


def identity_of(image_id: int | str, name: str) -> int:
    """An image's identity as an int64: the `image_id` of source `name` if it is a number (as in COCO), else a hash."""
    known = str(image_id)
    return int(known) if _WHOLE.fullmatch(known) and int(known) < 2**63 else stable_seed(name, known)
