"""The images of a shard, a Parquet file or an annotation file, one after the other, with or without captions."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from blip2_train.data.annotations.annotated_images import embedded_image, is_embedded
from blip2_train.data.annotations.columns import IMAGES, find_column, is_address
from blip2_train.data.annotations.content import PARQUET, SUFFIXES, read_content
from blip2_train.data.annotations.parquet_rows import open_parquet
from blip2_train.data.annotations.rows import Rows
from blip2_train.data.order import stable_seed
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.sources.image_files import ENDINGS
from blip2_train.data.sources.image_folders import ImageFolders
from blip2_train.data.storage.web import result_name
from blip2_train.errors import ShardError

SHARD = ".tar"
FORMS = (SHARD, PARQUET, *SUFFIXES)
"""Endings of the files that hold or name images."""
_BYTES = ("jpg", "png", "webp", "bytes")
_ADDRESSES = ("url", "image_url")
_ROWS = 64


class StreamedImage(NamedTuple):
    """An image, or why there is none."""

    name: str
    """A path, an address (`result_name`), or where it lies: `shard.tar/0001.jpg`, `rows.parquet, row 3`."""
    content: str | bytes
    """A path or address, or the content of its file."""
    error: str = ""
    """Why there is none; else empty."""


def holds_images(path: Path) -> bool:
    """Whether a file is a shard, a Parquet file or an annotation file, by its ending."""
    return path.name.lower().endswith(FORMS)


def streamed_images(path: Path, column: str | None = None, folder: str | None = None) -> Iterator[StreamedImage]:
    """The images of a file, read while they are asked for.

    Args:
        path: A tar shard, a Parquet file, or an annotation file of any layout with a path, an address or a file's
            content in base64 for each image; of equal paths the first counts.
        column: Column or key of the image; None = `image`, `file_name` or another usual one, then `url`.
        folder: Where paths start; None = the folder of the file.

    Raises:
        ShardError: if the file cannot be read or has no such column, or there is no such folder.
        ConfigError: if pyarrow, which a Parquet file needs, is not installed.
    """
    if path.name.lower().endswith(SHARD):
        yield from _shard(path)
        return
    parquet = path.suffix.lower() == PARQUET
    folders, seen = ImageFolders(folder or str(path.parent)), set[int]()
    for where, value in _parquet(path, column) if parquet else _rows(path, column):
        image = _image(path, where, value, folders, Path(folder) if folder else path.parent)
        if isinstance(image.content, str):
            key = stable_seed("image", image.content)
            if key in seen:
                continue
            seen.add(key)
        yield image


def _shard(path: Path) -> Iterator[StreamedImage]:
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                if member.isfile() and member.name.rpartition(".")[2].lower() in ENDINGS:
                    file = archive.extractfile(member)
                    assert file is not None
                    yield StreamedImage(f"{path}/{member.name}", file.read())
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        yield StreamedImage(str(path), b"", f"{path} is cut or damaged from here on ({error}); get it again")


def _parquet(path: Path, column: str | None) -> Iterator[tuple[str, Any]]:
    file = open_parquet(path)
    name = _column(path, file.schema_arrow.names, column)
    try:
        row = 0
        for batch in file.iter_batches(_ROWS, columns=[name]):
            for value in batch.column(0):
                yield f"row {row}", value.as_py()
                row += 1
    except (OSError, ValueError) as error:  # pyarrow's errors are of both kinds
        raise ShardError(f"{path} cannot be read from row {row} on ({error}); get it again") from None


def _rows(path: Path, column: str | None) -> Iterator[tuple[str, Any]]:
    content = read_content(path, 'rows with an image, [{"image": …}]')
    value_of: Callable[[Mapping[str, Any]], Any] | None = None
    for where, values in _entries(path, content):
        if value_of is None:
            if column is None and {"filepath", "filename"} <= values.keys():  # Karpathy's splits
                value_of = _joined
            else:
                value_of = _getter(_column(path, list(values), column))
        yield where, value_of(values)


def _entries(path: Path, content: Rows | dict[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not isinstance(content, dict):
        yield from ((f"{content.unit} {number}", values) for _, number, values in content)
        return
    entries = content.get("images")
    if not isinstance(entries, list):
        raise ShardError(f"{path} has no list of images; give rows with an image, or COCO's {{'images': […]}}")
    for number, values in enumerate(entries, 1):
        yield f"image {number}", values if isinstance(values, dict) else {}


def _joined(values: Mapping[str, Any]) -> str:
    return f"{values.get('filepath')}/{values.get('filename')}"


def _getter(name: str) -> Callable[[Mapping[str, Any]], Any]:
    return lambda values: values.get(name)


def _column(path: Path, columns: list[str], chosen: str | None) -> str:
    known = (*IMAGES, *_BYTES)
    addresses = next((name for name in columns if name.lower() in _ADDRESSES), None)
    if chosen is None and addresses is not None and not {*known} & {*columns}:
        return addresses
    return find_column(path, columns, chosen, known, "--image-column")


def _image(path: Path, where: str, value: Any, folders: ImageFolders, start: Path) -> StreamedImage:
    """What a cell holds or names; a path that is nowhere is named below `start`."""
    name = f"{path}, {where}"
    if isinstance(value, dict):
        inner = value.get("path")
        name = f"{path}, {inner}" if isinstance(inner, str) and inner else name
        value = value.get("bytes") or inner
    if isinstance(value, bytes):
        return StreamedImage(name, value)
    if not isinstance(value, str) or not value:
        return StreamedImage(name, b"", f"{name} holds neither a path nor an image")
    if is_embedded(value):
        try:
            return StreamedImage(name, embedded_image(value))
        except UnusableSample as error:
            return StreamedImage(name, b"", f"{name} is no image that can be read ({error.detail})")
    if is_address(value):
        return StreamedImage(result_name(value), value)
    if (file := folders.find(value)) is not None:
        return StreamedImage(str(file), str(file))
    missing = f"there is no file {start / value}; if the paths start elsewhere, pass --image-folder=<folder>"
    return StreamedImage(str(start / value), str(start / value), missing)
