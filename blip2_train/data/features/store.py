"""Reads stored features of images, by the content of the images' files."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from blip2_train.data.features.image_keys import CROPS, EVALUATION, ImageTable, Stored, image_key
from blip2_train.data.features.layout import FeatureLayout
from blip2_train.data.features.settings import FeatureSettings
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.shards.open_files import SHARD_FILES
from blip2_train.data.shards.shard_lists import INDEX
from blip2_train.errors import ConfigError, ShardError
from blip2_train.system.atomic_write import read_checked
from blip2_train.system.records import Count, check_record

IMAGES = "images.npy"
"""File of the table of images."""
_OWNERS = count(-1, -1)
"""Identities of the folders of a process; those of readers of data shards are 0 and more."""
_TAR_HEADER = 512


class _Shard(msgspec.Struct):
    file: str
    bytes: Count
    sha256: str


class _Index(msgspec.Struct):
    settings: FeatureSettings
    images: Count
    crops: Count
    bytes: Count
    rejected: dict[str, Count]
    shards: list[_Shard]


def read_index(folder: Path) -> dict[str, Any]:
    """The content of `index.json`; the shards that it lists are there and as long as it states.

    Raises:
        ShardError: if it is no folder of features, or not whole.
    """
    path, again = folder / INDEX, "write the features anew into another folder"
    if not path.is_file():
        what = "features.py was stopped there; repeat its command" if folder.is_dir() else "there is no such folder"
        raise ShardError(f"{folder} holds no finished features ({what})")
    content = read_checked(path, again)
    index = check_record(content, _Index, path, again, ShardError)
    for shard in index.shards:
        file = folder / shard.file
        if Path(shard.file).name != shard.file or not file.is_file() or file.stat().st_size != shard.bytes:
            raise ShardError(f"{file} is missing or has another size than {INDEX} lists; {again}")
    return content


class FeatureFolder:
    """One folder of features.

    Args:
        path: The folder.

    Raises:
        ShardError: if it holds no finished features, or not all of them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        index = check_record(read_index(path), _Index, path / INDEX, "write the features anew", ShardError)
        self.settings, self.images, self._files = index.settings, index.images, [shard.file for shard in index.shards]
        settings, dtype = self.settings, str(self.settings.tower.get("dtype"))
        try:
            self.layout = FeatureLayout(patches=settings.patches, width=settings.width, dtype=dtype, bits=settings.bits)
        except ConfigError as error:
            raise ShardError(f"{path / INDEX} cannot be used ({error}); write the features anew") from None
        self._begin()

    def _begin(self) -> None:
        """Initialise the state that each process has of its own."""
        self._owner, self._table = next(_OWNERS), ImageTable(self.path / IMAGES)
        weakref.finalize(self, SHARD_FILES.forget, self._owner)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_owner", "_table")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def find(self, content: bytes, orientation: int | None) -> Stored | None:
        """What is stored of an image; None if the folder does not know it."""
        return self._table.find(image_key(content, orientation))

    def read(self, stored: Stored, crop: int | None) -> Tensor:
        """Features `(1, P, Dv)` of a training crop of an image, or of its crop of evaluation (None).

        Raises:
            ShardError: if they cannot be read.
        """
        behind = self.settings.crops if stored.flags & CROPS else 0
        member = stored.member + (behind if crop is None else crop)
        path, layout = self.path / self._files[stored.shard], self.layout
        try:
            file = SHARD_FILES.get(self._owner, stored.shard, path)
            return layout.decode(file.read(layout.size, member * layout.stride + _TAR_HEADER))[None]
        except (OSError, ShardError) as error:
            raise ShardError(f"{path} cannot be read ({error}); write the features anew into another folder") from None


@dataclass(frozen=True)
class StoredFeatures:
    """The features of a run's images, in one or several folders; stands in for the transforms.

    Features come as images of one channel, of P rows and Dv columns, so that batches of both have four dimensions.

    Attributes:
        folders: The first that knows an image counts.

    Raises:
        ConfigError: if the folders are of different towers.
    """

    folders: Sequence[FeatureFolder]

    def __post_init__(self) -> None:
        first, *others = self.folders
        for other in others:
            own = other.settings
            first.settings.check_tower(own.tower, own.tower_sha256, first.path)
            if other.layout.dtype != first.layout.dtype:
                raise ConfigError(f"data.features: {first.path} and {other.path} have other precisions")

    @property
    def size(self) -> int:
        """Bytes of a crop's features in a batch."""
        layout = self.folders[0].layout
        return layout.patches * layout.width * (4 if layout.dtype == "float32" else 2)

    def check_transform(self, transform: dict[str, Any]) -> None:
        """Refuse a recipe that makes other pixel values; raises `ConfigError`."""
        for folder in self.folders:
            folder.settings.check_transform(transform, folder.path)

    def check_evaluation(self, transform: dict[str, Any]) -> None:
        """Refuse a model that reads other pixel values of an image in evaluation; raises `ConfigError`."""
        for folder in self.folders:
            folder.settings.check_transform(transform, folder.path, evaluation=True)

    def check_tower(self, tower: dict[str, Any], sha256: str) -> None:
        """Refuse a recipe with another tower; raises `ConfigError`."""
        for folder in self.folders:
            folder.settings.check_tower(tower, sha256, folder.path)

    def training_crop(self, content: bytes, generator: torch.Generator, orientation: int | None = None) -> Tensor:
        """Features `(1, P, Dv)` of one of an image's training crops, drawn from the generator.

        Args:
            content: Content of the image's file.
            generator: Draws the crop.
            orientation: EXIF orientation stored beside the file.

        Raises:
            UnusableSample: if the image could not be read when features were written.
            ShardError: if nothing is known of the image.
        """
        folder, stored = self._find(content, orientation, CROPS, "training crops")
        draw = torch.rand((), generator=generator, dtype=torch.float64).item()
        return folder.read(stored, int(draw * folder.settings.crops))

    def evaluation_crop(self, content: bytes, generator: torch.Generator, orientation: int | None = None) -> Tensor:
        """Features `(1, P, Dv)` of an image's crop of evaluation, without a draw; raises as `training_crop`."""
        folder, stored = self._find(content, orientation, EVALUATION, "crop of evaluation")
        return folder.read(stored, None)

    def fingerprint(self) -> str:
        """What has to stay the same for a run to continue."""
        return ", ".join(f"{one.settings.crops} crops, hash {one.settings.identity()}" for one in self.folders)

    def _find(self, content: bytes, orientation: int | None, flag: int, what: str) -> tuple[FeatureFolder, Stored]:
        known = False
        for folder in self.folders:
            stored = folder.find(content, orientation)
            if stored is not None and stored.flags & flag:
                return folder, stored
            if stored is not None and not stored.flags:
                raise UnusableSample("unreadable image", "no features were written, as it could not be read")
            known |= stored is not None
        names = " or ".join(str(folder.path) for folder in self.folders)
        if known:
            raise ShardError(f"{names} has no {what} of this image, only the other kind; write them by features.py")
        raise ShardError(
            f"{names} has no features of this image: it changed since they were written, or is new; write the features "
            "anew, with the recipe and the data of this run"
        )


def open_features(folders: str | Sequence[str]) -> StoredFeatures:
    """Open one or several folders of features.

    Raises:
        ShardError: if one holds no finished features, or not all of them.
        ConfigError: if they are of different towers, or no folder is given.
    """
    paths = [folders] if isinstance(folders, str) else list(folders)
    if not paths:
        raise ConfigError("data.features is an empty list; name a folder, or leave it out")
    return StoredFeatures([FeatureFolder(Path(path).expanduser()) for path in paths])
