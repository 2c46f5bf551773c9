"""Image files in folders, each with its caption in a file beside it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from blip2_train.data.order import stable_seed
from blip2_train.data.printable_names import printable_name
from blip2_train.data.record import Record, SampleLocation
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.shards.sample_files import captions_of, details_of, image_id_of, orientation_of
from blip2_train.data.sources.image_files import ENDINGS, HIDDEN, files_below
from blip2_train.errors import ShardError
from blip2_train.types import RejectedSample

_TEXTS = (".txt", ".json")
_ACCOUNTS = re.compile(r"(.*/)?\d+(_stats\.json|\.parquet)")
"""Statistics and metadata files that img2dataset writes beside a folder of images."""
_PROBES = 20
"""Images that are checked for a text file beside them to detect the kind of a folder."""


class FolderSource:
    """Images below a folder, each with a `.txt` or a `.json` of the same name, read by the rules of tar shards.

    It is the layout of img2dataset with `output_format=files`, and of many folders of users. Samples come in the order
    of their paths; memory is one path per image.

    Args:
        folder: folder with images at any depth.
        name: name of the source in plans and records.
        caption_key: key of the caption in the `.json`, see `ShardSource`.

    Raises:
        ShardError: if there is no image.
    """

    files = 1

    def __init__(self, folder: Path, name: str, caption_key: str | None = None) -> None:
        self.name, self._folder, self._caption_key = name, folder, caption_key
        paths: list[bytes] = []
        passed_over: list[RejectedSample] = []
        for path, why in files_below(folder, beside=[suffix[1:] for suffix in _TEXTS]):
            if not why:
                paths.append(os.fsencode(path))
            elif _ACCOUNTS.fullmatch(path):
                continue
            elif path.lower().endswith(_TEXTS) and why != HIDDEN:
                passed_over.append(self._rejected(path, "missing image", "no image of this name beside it"))
            else:
                passed_over.append(self._rejected(path, "not an image", why))
        self.rejected = tuple(passed_over)
        if not paths:
            raise ShardError(f"folder {folder} holds no image ({', '.join(ENDINGS)})")
        self._paths = np.sort(np.array(paths))  # of equal width, which takes less memory than objects
        self.size = sum(path.stat().st_size for path in map(self._path, range(len(self))))

    def __len__(self) -> int:
        return len(self._paths)

    def sample_location(self, index: int) -> SampleLocation:
        """The location of image `index`."""
        path = printable_name(self._relative(index))
        return SampleLocation(printable_name(str(self._folder)), "", path, path)

    def read(self, index: int) -> Record:
        """Read image `index` with its captions.

        Raises:
            UnusableSample: if it has no text, or its text holds no caption.
        """
        text, extra = (self._beside(index, suffix) for suffix in _TEXTS)
        if text is None and extra is None:
            raise UnusableSample("missing text", f"neither {' nor '.join(_TEXTS)} beside it")
        captions, own_id = captions_of(text, extra, self._caption_key), image_id_of(extra)
        identity = (printable_name(self._relative(index)),) if own_id is None else (own_id,)
        try:
            image = self._path(index).read_bytes()
        except OSError as error:
            raise UnusableSample("missing image", error.strerror or str(error)) from None
        image_id = stable_seed(self.name, *identity)
        return Record(image=image, captions=captions, image_id=image_id, orientation=orientation_of(extra))

    def details(self, index: int) -> dict[str, Any]:
        """Entries of the `.json` beside the captions and those that follow from the image's file."""
        return details_of(self._beside(index, ".json"))

    def fingerprint(self) -> str:
        """Hash of the images' paths, in order, and of the caption key."""
        parts = [*self._paths.tolist(), *([] if self._caption_key is None else [self._caption_key.encode()])]
        return hashlib.blake2b(b"\0".join(parts), digest_size=8).hexdigest()

    def _rejected(self, path: str, reason: str, detail: str) -> RejectedSample:
        source, key = printable_name(str(self._folder)), printable_name(path)
        return RejectedSample(source=source, key=key, reason=reason, detail=detail)

    def _relative(self, index: int) -> str:
        return os.fsdecode(self._paths[index])

    def _path(self, index: int) -> Path:
        return self._folder / self._relative(index)

    def _beside(self, index: int, suffix: str) -> bytes | None:
        for ending in (suffix, suffix.upper()):
            try:
                return self._path(index).with_suffix(ending).read_bytes()
            except OSError:
                continue
        return None


def holds_images_with_texts(folder: Path) -> bool:
    """Whether a folder is one of `FolderSource`: without tar shards, and with a text file beside an image."""
    if not folder.is_dir() or any(folder.glob("*.tar")):
        return False
    probes = (folder / path for path in islice(_images(folder), _PROBES))
    endings = [ending for suffix in _TEXTS for ending in (suffix, suffix.upper())]
    return any(path.with_suffix(ending).is_file() for path in probes for ending in endings)


def _images(folder: Path) -> Iterator[str]:
    """Paths of the images below a folder, relative to it."""
    return (path for path, passed_over in files_below(folder) if not passed_over)
