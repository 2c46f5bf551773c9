"""Folders of image files, on this machine and on remote storage."""

from __future__ import annotations

from glob import glob
from pathlib import Path

from blip2_train.data.rejections import UnusableSample
from blip2_train.data.storage.remote import RemoteFile, Storage, is_remote
from blip2_train.errors import ShardError


class ImageFolders:
    """A folder, or several that are searched in turn.

    Args:
        folders: the folder, or a glob of several (Visual Genome's `VG_100K*`).

    Raises:
        ShardError: if there is no such folder.
    """

    def __init__(self, folders: str) -> None:
        one = Path(folders).expanduser()
        candidates = [one] if one.is_dir() else [Path(path) for path in sorted(glob(str(one)))]
        self._folders = [folder for folder in candidates if folder.is_dir()]
        if not self._folders:
            raise ShardError(
                f"image folder {folders} does not exist; give the folder of the images (images=<folder>, in a recipe "
                "data.images=<folder>)"
            )

    def __str__(self) -> str:
        return ", ".join(map(str, self._folders))

    def find(self, path: str) -> Path | None:
        """The file of a path below the folders (or of an absolute path); None if there is none."""
        return next((folder / path for folder in self._folders if (folder / path).is_file()), None)

    def read(self, path: str) -> bytes:
        """Content of an image.

        Raises:
            UnusableSample: if it is missing or cannot be read.
        """
        if (file := self.find(path)) is None:
            raise UnusableSample("missing image", f"no {path} in {self}")
        try:
            return file.read_bytes()
        except OSError as error:
            raise UnusableSample("missing image", f"{file}: {error.strerror}") from None


class RemoteImages:
    """A folder on remote storage.

    Args:
        folder: its address.
        storage: how it is accessed.
    """

    def __init__(self, folder: str, storage: Storage) -> None:
        self._folder, self._storage = folder.rstrip("/"), storage

    def __str__(self) -> str:
        return self._folder

    def find(self, path: str) -> RemoteFile | None:
        """The file of a path below the folder; None if there is none.

        Raises:
            ShardError: if the storage does not answer.
        """
        try:
            return self._storage.file(f"{self._folder}/{path}")
        except OSError as error:
            raise ShardError(f"{self}/{path} cannot be searched for: {error.strerror or error}") from None

    def read(self, path: str) -> bytes:
        """Content of an image.

        Raises:
            UnusableSample: if it is missing or cannot be read.
        """
        address = f"{self._folder}/{path}"
        try:
            if (file := self._storage.file(address)) is None:
                raise UnusableSample("missing image", f"no {path} in {self}")
            return self._storage.read(file)
        except OSError as error:
            raise UnusableSample("missing image", f"{address}: {error.strerror or error}") from None


def open_images(folders: str, storage: Storage | None = None) -> ImageFolders | RemoteImages:
    """The images of a local or remote folder, or of a glob of several local folders.

    Raises:
        ShardError: if there is no such local folder.
    """
    return RemoteImages(folders, storage or Storage()) if is_remote(folders) else ImageFolders(folders)
