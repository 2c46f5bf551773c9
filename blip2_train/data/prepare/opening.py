"""Opens what shards can be made from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from blip2_train.data.annotations import AnnotationSource
from blip2_train.data.parquet_source import ParquetSource, parquet_files
from blip2_train.data.shard_source import ShardSource
from blip2_train.data.source import CaptionSource
from blip2_train.data.source_config import SourceConfig
from blip2_train.errors import ConfigError


class PairSource(CaptionSource, Protocol):
    """Pictures with captions, and what else is known of them."""

    def details(self, number: int) -> dict[str, Any]:
        """Entries for the record of sample `number`, as JSON holds them; `image_id` and `url` among them if known."""
        ...


def open_pairs(
    path: str | Sequence[str],
    images: str | None = None,
    split: str | None = None,
    picture_column: str | None = None,
    caption_column: str | None = None,
) -> PairSource:
    """Open tar shards, an annotation file with a folder of pictures, or Parquet files.

    Args:
        path: folder, glob, file, or list of these.
        images: folder that paths start from, or a glob of several; the file's own if None.
        split: split of an annotation file that has splits, several joined by `+`.
        picture_column: column or key of the picture, where it is not a usual one.
        caption_column: column or key of the caption.

    Raises:
        ConfigError: if an option does not fit the kind of source, or pyarrow is needed and not installed.
        ShardError: if the source cannot be read.
    """
    if files := parquet_files(path):
        if split is not None:
            raise ConfigError(f"source {path}: split is for an annotation file; Parquet files have none, leave it out")
        title = SourceConfig(path=path).title
        return ParquetSource(files, images, title, picture_column, caption_column)
    config = SourceConfig(
        path=path, images=images, split=split, picture_column=picture_column, caption_column=caption_column
    )
    if config.is_annotation_file:
        return AnnotationSource(str(path), images, split, config.title, picture_column, caption_column)
    return ShardSource(path, config.title)
