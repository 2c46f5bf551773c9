"""Opens the sources from which shards can be made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from glob import glob, has_magic
from itertools import groupby
from pathlib import Path
from typing import Literal

from blip2_train.data.annotations.columns import Columns
from blip2_train.data.annotations.content import SUFFIXES
from blip2_train.data.prepare.folder_source import FolderSource, holds_images_with_texts
from blip2_train.data.prepare.joined_source import JoinedSource
from blip2_train.data.shards.paths import expanded_braces
from blip2_train.data.sources.annotation_source import AnnotationSource
from blip2_train.data.sources.config import SourceConfig
from blip2_train.data.sources.parquet_source import ParquetSource, parquet_files
from blip2_train.data.sources.shard_source import ShardSource
from blip2_train.data.sources.source import PairSource
from blip2_train.data.storage.remote import is_remote
from blip2_train.errors import ConfigError, ShardError

_Kind = Literal["annotation files", "Parquet files", "shards", "folders"]


def open_pairs(
    path: str | Sequence[str],
    images: str | None = None,
    split: str | None = None,
    picture_column: str | None = None,
    caption_column: str | None = None,
    id_column: str | None = None,
) -> PairSource:
    """Open tar shards, annotation files with a folder of images, Parquet files, or folders of images with texts.

    Several annotation files, or sources of several kinds, are joined to one source, in the given order.

    Args:
        path: folder, glob, file, or list of these.
        images: folder that paths start from, or a glob of several; each file's own if None.
        split: split of annotation files that have splits, several joined by `+`.
        picture_column: column or key of the image, if it is not a usual one.
        caption_column: column or key of the caption; for shards and folders, in the `.json` of each sample.
        id_column: column or key of the image's identity.

    Raises:
        ConfigError: if an option does not fit the kind of source, or pyarrow is needed and not installed.
        ShardError: if a source cannot be read, or an annotation file is named twice.
    """
    columns = Columns(image=picture_column, caption=caption_column, id=id_column)

    def opened(kind: _Kind, items: Sequence[str], name: str) -> PairSource:
        if kind == "annotation files":
            return AnnotationSource(items[0], images, split, name, columns)
        if kind == "folders":
            return FolderSource(Path(items[0]).expanduser(), name, caption_column)
        if kind == "Parquet files":
            return ParquetSource(parquet_files(items), images, name, columns)
        return ShardSource(items[0] if len(items) == 1 else items, name, caption_key=caption_column)

    parts = _parts(path)
    kinds = {kind for kind, _ in parts}
    _refuse_for_others("split", split, ["annotation files"], kinds)
    for option, value in (("images", images), ("picture_column", picture_column), ("id_column", id_column)):
        _refuse_for_others(option, value, ["annotation files", "Parquet files"], kinds)
    whole = SourceConfig(path=path).title
    if len(parts) == 1:
        return opened(*parts[0], whole)
    taken: Counter[str] = Counter()
    sources = []
    for kind, items in parts:
        name = SourceConfig(path=items).title
        taken[name] += 1
        name = name if taken[name] == 1 else f"{name}-{taken[name]}"
        # Equal paths below one folder are the same image, in whichever file they are listed.
        sources.append(opened(kind, items, whole if kind == "annotation files" and images is not None else name))
    return JoinedSource(sources, whole)


def _parts(path: str | Sequence[str]) -> list[tuple[_Kind, list[str]]]:
    """Parts to be opened: each annotation file, each folder of images, adjacent items of the other kinds together."""
    items = [item for given in ([path] if isinstance(path, str) else path) for item in _expanded(given)]
    parts: list[tuple[_Kind, list[str]]] = []
    for kind, neighbours in groupby(items, _kind):
        group = list(neighbours)
        parts += [(kind, [item]) for item in group] if kind in ("annotation files", "folders") else [(kind, group)]
    for kind, (first, *_) in parts:
        if kind == "annotation files" and items.count(first) > 1:
            raise ShardError(f"annotation file {first} is listed twice; name it once")
    return parts or [("shards", [])]


def _expanded(item: str) -> Iterator[str]:
    """Expand braces, and globs of annotation files; anything else is unchanged."""
    for one in expanded_braces(item):
        files: list[str] = []
        if one.lower().endswith(SUFFIXES) and has_magic(one) and not is_remote(one):
            files = sorted(glob(str(Path(one).expanduser()), recursive=True))
        yield from files or [one]


def _kind(item: str) -> _Kind:
    if item.lower().endswith(SUFFIXES):
        return "annotation files"
    if not is_remote(item) and holds_images_with_texts(Path(item).expanduser()):
        return "folders"
    return "Parquet files" if parquet_files(item) else "shards"


def _refuse_for_others(option: str, value: str | None, allowed: Sequence[str], kinds: Collection[str]) -> None:
    if value is not None and not set(allowed) & set(kinds):
        names = " and ".join(sorted(kinds))
        raise ConfigError(f"{option}={value} is for {' and '.join(allowed)}, not for {names}; leave it out")
