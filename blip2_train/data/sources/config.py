"""The description of a data source, from which it is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from blip2_train.data.annotations.content import PARQUET, SUFFIXES
from blip2_train.data.annotations.json_content import require_local
from blip2_train.data.printable_names import printable_name
from blip2_train.data.storage.options import StorageOptions
from blip2_train.errors import ConfigError

if TYPE_CHECKING:
    from blip2_train.data.sources.source import CaptionSource

HELD_OUT = 256
"""Samples that a run without validation data of its own holds out by default, at most a tenth of all."""


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """Images with captions: tar shards, or an annotation file with a folder of images."""

    path: str | Sequence[str]
    """Shards: a folder, a glob, a range in braces, a file, or a list of these. Or an annotation file, see
    `read_captions`."""
    name: str | None = None
    """Name in plans, logs and the mixture; from the path if None."""
    weight: float | None = None
    """Share in the mixture, in any unit; the number of samples if None (then it must be None for every source)."""
    images: str | None = None
    """Folder that the paths of an annotation file start from, or a glob of several; its own folder if None."""
    split: str | None = None
    """Split of an annotation file that has splits, several joined by `+`."""
    picture_column: str | None = None
    """Column or key of the image in an annotation file; `image`, `filepath` or another usual one if None."""
    caption_column: str | None = None
    """Column or key of the caption: in an annotation file `caption` or `text` if None; in the `.json` of samples of
    shards see `ShardSource` if None."""
    id_column: str | None = None
    """Column or key of the image's identity, which other files share; `image_id` if None."""
    first_captions: int | None = None
    """Choose among the first captions of a sample only (CapFilt lists are sorted, BLIP-2 used two); all if None."""

    storage: StorageOptions | None = None
    """How remote shards are read, and how bad shards are handled, also local ones; the defaults if None."""

    def __post_init__(self) -> None:
        for name in ("images", "split", "picture_column", "id_column"):
            if getattr(self, name) is not None and not self.is_annotation_file:
                raise ConfigError(
                    f"source {self.path}: {name} is for an annotation file ({', '.join(SUFFIXES)}); shards have none, "
                    "leave it out"
                )
        if self.weight is not None and not self.weight > 0:
            raise ConfigError(
                f"source {self.path}: weight must be positive, got {self.weight}; leave an unwanted source out"
            )
        if self.first_captions is not None and self.first_captions < 1:
            raise ConfigError(f"source {self.path}: first_captions must be at least 1, got {self.first_captions}")

    @property
    def is_annotation_file(self) -> bool:
        """Whether the path is an annotation file, by its extension; else it stands for shards."""
        return isinstance(self.path, str) and self.path.lower().endswith((*SUFFIXES, PARQUET))

    def require_file(self) -> None:
        """Look whether annotation file and image folder are there, without reading them; not at an address.

        Raises:
            ShardError: if one is not.
        """
        from blip2_train.data.sources.image_folders import ImageFolders

        if type(self) is SourceConfig and self.is_annotation_file:
            require_local("annotation file", str(self.path))
        if self.images is not None and "://" not in self.images:
            ImageFolders(self.images)

    @property
    def reads_shards(self) -> bool:
        """Whether the samples are those of the shards at `path`; a subclass whose samples are says so itself."""
        return type(self) is SourceConfig and not self.is_annotation_file

    @property
    def title(self) -> str:
        """The name, or one made from the path: the last part that is not a pattern."""
        if self.name is not None:
            return printable_name(self.name)
        first = self.path if isinstance(self.path, str) else next(iter(self.path), "shards")
        parts = [part for part in Path(first).with_suffix("").parts if not set(part) & set("*?[{")]
        return printable_name(parts[-1]) if parts and parts[-1] != "/" else "shards"

    def own_source(self) -> CaptionSource | None:
        """The opened source, for subclasses that open their source themselves; else None."""
        return None


def open_source(config: SourceConfig) -> CaptionSource:
    """Open a source.

    Raises:
        ShardError: if it does not exist or holds no usable sample.
    """
    # Here, as a description of data is printed or checked without reading any.
    from blip2_train.data.annotations.columns import Columns
    from blip2_train.data.sources.annotation_source import AnnotationSource
    from blip2_train.data.sources.shard_source import ShardSource
    from blip2_train.data.storage.remote import Storage

    if (own := config.own_source()) is not None:
        return own
    if config.is_annotation_file:
        columns = Columns(image=config.picture_column, caption=config.caption_column, id=config.id_column)
        storage = Storage(config.storage)
        return AnnotationSource(str(config.path), config.images, config.split, config.title, columns, storage)
    path = config.path if isinstance(config.path, str) else [str(item) for item in config.path]
    return ShardSource(path, config.title, options=config.storage, caption_key=config.caption_column)


def source_weights(configs: Sequence[SourceConfig], sizes: Sequence[int]) -> list[float]:
    """The mixing weight of each source: as given, or its number of samples if none is given.

    Raises:
        ConfigError: if some sources have a weight and others have none, or two have the same name.
    """
    titles = [config.title for config in configs]
    for title in titles:
        if titles.count(title) > 1:
            raise ConfigError(f"two data sources are named {title!r}: give each its own name")
    given = [config.weight for config in configs if config.weight is not None]
    if given and len(given) < len(configs):
        without = next(config.title for config in configs if config.weight is None)
        raise ConfigError(f"data source {without!r} has no weight but others have: give every source a weight, or none")
    return given or [float(size) for size in sizes]
