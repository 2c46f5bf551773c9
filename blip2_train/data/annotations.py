"""Pictures in a folder with captions in an annotation file of Karpathy's format."""

from __future__ import annotations

import hashlib
from pathlib import Path

from blip2_train.data.official.karpathy import karpathy_entries, picture_path
from blip2_train.data.order import stable_seed
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.source import Place, Record
from blip2_train.errors import ShardError
from blip2_train.types import RejectedSample


class AnnotationSource:
    """One split of a Karpathy JSON (`dataset_coco.json`, `dataset_flickr30k.json`): each picture with all its captions.

    The file is `{"images": [{"filename", "split", "sentences": [{"raw"}], "filepath"?, "cocoid"?}]}`. A picture lies at
    `<images>/<filepath>/<filename>`; its identity is `cocoid`, so it is the same in every annotation file of COCO.

    Args:
        path: annotation file.
        images: folder of the pictures.
        split: which pictures: `train`, `val`, `test`, or several joined by `+` (COCO's training set is
            `train+restval`).
        name: name of the source in plans and records.

    Raises:
        ShardError: if the file or the folder cannot be read, the format is another, or the split is empty.
    """

    def __init__(self, path: str, images: str, split: str, name: str) -> None:
        self.name = name
        self.rejected: tuple[RejectedSample, ...] = ()
        self.files = 1
        self._file = Path(path).expanduser()
        self._folder = Path(images).expanduser()
        if not self._folder.is_dir():
            raise ShardError(f"picture folder {images} does not exist; the pictures of {path} are looked for there")
        self._paths: list[str] = []
        self._captions: list[tuple[str, ...]] = []
        self._image_ids: list[int] = []
        for entry in karpathy_entries(path, split):
            relative = picture_path(entry)
            self._paths.append(relative)
            self._captions.append(tuple(sentence["raw"] for sentence in entry["sentences"]))
            self._image_ids.append(int(entry["cocoid"]) if "cocoid" in entry else stable_seed(name, relative))
        self.size = self._file.stat().st_size

    def __len__(self) -> int:
        return len(self._paths)

    def locate(self, number: int) -> Place:
        """Where picture `number` lies."""
        return Place(str(self._file), self._file.stem, self._paths[number])

    def read(self, number: int) -> Record:
        """Read picture `number` with all its captions.

        Raises:
            UnusableSample: if the picture is missing or has no caption.
        """
        if not self._captions[number]:
            raise UnusableSample("missing text", "no sentences")
        try:
            picture = (self._folder / self._paths[number]).read_bytes()
        except OSError as error:
            raise UnusableSample("missing picture", str(error)) from None
        return Record(picture=picture, captions=self._captions[number], image_id=self._image_ids[number])

    def fingerprint(self) -> str:
        """Hash of the pictures' paths and of how many captions each has."""
        parts = [f"{path}:{len(captions)}" for path, captions in zip(self._paths, self._captions, strict=True)]
        return hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()
