"""The destination of finished shards: a local folder, or one on remote storage."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blip2_train.data.order import stable_seed
from blip2_train.data.storage.remote import Storage, is_remote
from blip2_train.data.storage.user_cache import index_folder
from blip2_train.errors import ShardError
from blip2_train.system.folder_lock import lock_folder


class Destination:
    """A local folder.

    Args:
        folder: the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        """Folder of unfinished files."""

    def __str__(self) -> str:
        return str(self.folder)

    @contextmanager
    def writing(self, unfinished: Path) -> Iterator[None]:
        """Inside, a file is written that will be put here; it is removed if that fails, as it may fill the disk.

        Raises:
            ShardError: with the system's reason.
        """
        try:
            yield
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            raise ShardError(
                f"{self}/{unfinished.name} cannot be written: {error.strerror or error}; mend that and repeat the "
                "command"
            ) from None

    def put(self, path: Path) -> None:
        """Move a finished file of the same disk to the folder, atomically."""
        path.replace(self.folder / path.name)

    def sizes(self) -> dict[str, int]:
        """Bytes of each finished file."""
        if not self.folder.is_dir():
            return {}
        return {path.name: path.stat().st_size for path in self.folder.iterdir() if path.is_file()}

    def holds(self, name: str, size: int, sha256: str) -> bool:
        """Whether the folder has this file, with this size and SHA-256."""
        path = self.folder / name
        return path.is_file() and path.stat().st_size == size and sha256_of(path) == sha256

    def text(self, name: str) -> str | None:
        """The content of a finished file; None if it does not exist."""
        path = self.folder / name
        return path.read_text(encoding="utf-8") if path.is_file() else None

    @contextmanager
    def alone(self, work: Path) -> Iterator[None]:
        """Exclude a second preparation, by a lock in `work` that ends with this process."""
        with lock_folder(work, f"another process makes shards in {self} just now, which", "wait for it, or end it"):
            yield


class RemoteDestination(Destination):
    """A folder on remote storage; unfinished files lie in the user's cache folder, at most one shard per process.

    Args:
        url: its address.
        storage: how it is accessed.
    """

    def __init__(self, url: str, storage: Storage) -> None:
        super().__init__(index_folder().parent / "preparing" / f"{stable_seed(url.rstrip('/')):016x}")
        self._url, self._storage = url.rstrip("/"), storage

    def __str__(self) -> str:
        return self._url

    def put(self, path: Path) -> None:
        """Upload a finished file, and remove the local one."""
        self._storage.put(path, f"{self._url}/{path.name}")
        path.unlink()

    def sizes(self) -> dict[str, int]:
        """Bytes of each finished file."""
        return {file.name: file.size for file in self._storage.find(self._url)}

    def holds(self, name: str, size: int, sha256: str) -> bool:
        """Whether the folder has this file, with this size; its content is not checked."""
        file = self._storage.file(f"{self._url}/{name}")
        return file is not None and file.size == size

    def text(self, name: str) -> str | None:
        """The content of a finished file; None if it does not exist."""
        file = self._storage.file(f"{self._url}/{name}")
        return self._storage.read(file).decode() if file else None


def open_destination(output: str) -> Destination:
    """The destination of a path or an address.

    Raises:
        ShardError: if remote storage does not respond.
    """
    if not is_remote(output):
        return Destination(Path(output).expanduser())
    destination = RemoteDestination(output, Storage())
    try:
        destination.sizes()
    except OSError as error:
        raise ShardError(
            f"{output} cannot be reached: {error}; see whether it is right, and the access to it"
        ) from None
    return destination


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
