"""The user's cache folder: indexes of shards, and copies of remote files for readers of whole files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from blip2_train.data.order import stable_seed
from blip2_train.data.storage.remote import Storage, is_remote
from blip2_train.errors import ShardError


def index_folder() -> Path:
    """The user's cache folder (`$XDG_CACHE_HOME`, else `~/.cache`), or a temporary one where that cannot be written."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(base) / "blip2_train" / "shards"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    folder = Path(tempfile.gettempdir()) / f"blip2_train-shards-{os.getuid()}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def local_copy(path: str, storage: Storage | None = None) -> Path:
    """The local file of a path; of a remote file, its copy in the user's cache folder, renewed when the file changes.

    Raises:
        ShardError: if the remote file is missing or cannot be read.
    """
    if not is_remote(path):
        return Path(path).expanduser()
    storage = storage or Storage()
    try:
        if (file := storage.file(path)) is None:
            raise ShardError(f"there is no file {path}; see whether it is spelt right")
        folder = index_folder().parent / "files" / f"{stable_seed(file.url, file.size, file.version):016x}"
        if not (folder / file.name).exists():
            folder.mkdir(parents=True, exist_ok=True)
            handle, unfinished = tempfile.mkstemp(dir=folder)
            with os.fdopen(handle, "wb") as copy, storage.open(file) as remote:
                while block := remote.read(1 << 23):
                    copy.write(block)
            os.replace(unfinished, folder / file.name)
    except OSError as error:
        raise ShardError(f"{path} cannot be read: {error.strerror or error}") from None
    return folder / file.name
