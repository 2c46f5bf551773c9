"""Where the images of a task lie: in a folder, in several, or in the file of annotations itself."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from blip2_train.data.embedded_pictures import embedded_picture, is_embedded
from blip2_train.data.official.checks import missing_pictures
from blip2_train.data.picture_folders import PictureFolders
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.shard_index import index_folder
from blip2_train.errors import ShardError


def locate_images(name: str, paths: Iterable[str], images: str | None, file: str) -> tuple[Path, dict[str, str]]:
    """The folder of a task's images, and where those lie that are not below it under the path that is written.

    Args:
        name: Of the task, for messages.
        paths: As written. One may be the image itself, see `is_embedded`: its file is written into the user's cache.
        images: Folder, or a glob of several that are looked through in turn; None = the folder of `file`.
        file: Of the annotations.

    Returns:
        The folder (of several, the first), and other paths by those that are written.

    Raises:
        ShardError: if an image is nowhere, or cannot be read where it stands.
    """
    written = sorted({*paths})
    moved = {path: str(_written_out(name, path)) for path in written if is_embedded(path)}
    rest = [path for path in written if path not in moved]
    folder = Path(file).expanduser().parent if images is None else Path(images).expanduser()
    if folder.is_dir():
        missing = missing_pictures(rest, folder)
    else:
        folders = PictureFolders(str(folder))
        found = {path: folders.find(path) for path in rest}
        missing = [path for path, place in found.items() if place is None]
        moved |= {path: str(place) for path, place in found.items()}
    if missing:
        raise ShardError(
            f"task {name}: {len(missing)} of {len(written)} pictures are not in {folder} (first: {missing[0][:100]}); "
            "put them there, or name their folder"
        )
    return folder, moved


def _written_out(name: str, embedded: str) -> Path:
    try:
        content = embedded_picture(embedded)
    except UnusableSample as problem:
        raise ShardError(f"task {name}: picture {embedded[:40]}… cannot be read ({problem.detail})") from None
    path = index_folder().parent / "images" / hashlib.sha256(content).hexdigest()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as copy:
            copy.write(content)
        os.replace(unfinished, path)
    return path
