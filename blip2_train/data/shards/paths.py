"""Paths of tar shards: folders, globs, ranges in braces and lists, on this machine and on remote storage."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from blip2_train.data.shards.tar import IMAGES, MORE_IMAGES, Shard
from blip2_train.data.storage.remote import RemoteFile, Storage, is_remote
from blip2_train.errors import ShardError

PIPE = "pipe:"
"""Prefix of an address that is a command, whose output is a shard."""
_REQUESTS = 16
"""Parts of a list that are expanded at a time."""
_COMPRESSED = (".gz", ".tgz", ".zst", ".xz", ".bz2", ".zip")
_HINT = "give data.source as a folder with .tar files, a glob or a range {00..99} in quotes, or a list of .tar files"


def expanded_braces(path: str) -> list[str]:
    """Expand ranges and lists in braces to paths; a path without braces, or one that exists, stays as it is.

    Raises:
        ShardError: if a brace is not closed.

    Example:
        >>> expanded_braces("shards/{08..10}.tar"), expanded_braces("s3://bucket/{a,b}/*.tar")
        (['shards/08.tar', 'shards/09.tar', 'shards/10.tar'], ['s3://bucket/a/*.tar', 's3://bucket/b/*.tar'])
    """
    if "{" not in path or (not is_remote(path) and os.path.lexists(os.path.expanduser(path))):
        return [path]
    import braceexpand  # late: most paths have no braces

    try:
        return list(braceexpand.braceexpand(path, escape=False))
    except ValueError:
        raise ShardError(f"{path} has a brace that is not closed; write a range as {{00000..00099}}") from None


def list_shards(path: str | Sequence[str], storage: Storage | None = None) -> list[Shard]:
    """The shards of a folder, a glob, a range in braces, a file or a list of these, as paths; see `find_shards`."""
    return [Path(shard) if isinstance(shard, str) else shard for shard in find_shards(path, storage)]


def find_shards(path: str | Sequence[str], storage: Storage | None = None) -> list[str | RemoteFile]:
    """The shards of a folder, a glob, a range in braces, a file or a list of these.

    The shards of one folder or glob are sorted. Local shards are strings, as 100,000 `Path` objects take seconds.

    Args:
        path: local path, or address on remote storage (`s3://bucket/folder`).
        storage: how remote storage is accessed.

    Raises:
        ShardError: if nothing is found, a file is compressed, or a shard is named twice.
    """
    given = [path] if isinstance(path, str) else [str(item) for item in path]
    if pipe := next((one for one in given if one.startswith(PIPE)), None):
        raise ShardError(
            f"{pipe} is a command, not a file: the output of commands is read with data.access=sequential, and only if "
            "they are on the command line"
        )
    items = [item for one in given for item in expanded_braces(one)]
    with ThreadPoolExecutor(_REQUESTS) as pool:
        lists = pool.map(lambda item: _expand(item, storage or Storage()), items)
        shards = [shard for some in lists for shard in some]
    if not shards:
        raise ShardError(f"the list of shards is empty: {_HINT}")
    for shard in shards:
        if str(shard).lower().endswith(_COMPRESSED):
            raise ShardError(f"shard {shard} is compressed, so its samples cannot be reached directly: unpack it")
    if len(set(shards)) < len(shards):
        twice = next(shard for shard in shards if shards.count(shard) > 1)
        raise ShardError(f"shard {twice} is listed twice: its samples would come twice per epoch; name it once")
    return shards


def _expand(item: str, storage: Storage) -> list[str | RemoteFile]:
    return [*(_expand_remote(item, storage) if is_remote(item) else _expand_local(item))]


def _expand_local(item: str) -> list[str]:
    path = Path(item).expanduser()
    if path.is_file():
        return [str(path)]
    if path.is_dir():
        names = sorted(name for name in os.listdir(path) if name.endswith(".tar"))
        if not names:
            deeper = next(path.rglob("*.tar"), None)
            advice = f"shards lie deeper, for instance {deeper}: use the glob '{path}/**/*.tar'" if deeper else _HINT
            if deeper is None and any(file.suffix[1:].lower() in (*IMAGES, *MORE_IMAGES) for file in path.iterdir()):
                advice = (
                    "it holds images, which need captions: a file that lists both (data=captions, images=<the "
                    "folder>), or a .txt beside each, of which make_shards.py makes shards"
                )
            raise ShardError(f"folder {path} holds no .tar file; {advice}")
        return names if str(path) == "." else [f"{str(path).rstrip('/')}/{name}" for name in names]
    if glob.has_magic(item):
        shards = [name for name in sorted(glob.glob(str(path), recursive=True)) if os.path.isfile(name)]
        if not shards:
            raise ShardError(f"no file matches {item}; {_HINT}")
        return shards
    raise ShardError(f"there is no file or folder {item}; {_HINT}")


def _expand_remote(item: str, storage: Storage) -> list[RemoteFile]:
    try:
        files = storage.find(item)
    except OSError as error:
        raise ShardError(
            f"{item} cannot be listed: {error.strerror or error}; see whether it is right, and the access to it"
        ) from None
    if [file.url for file in files] == [item] or glob.has_magic(item):
        shards = files
    else:
        shards = [file for file in files if file.suffix == ".tar"]
    if not shards:
        raise ShardError(f"there is no {'.tar file in' if files else 'file or folder'} {item}; {_HINT}")
    return shards
