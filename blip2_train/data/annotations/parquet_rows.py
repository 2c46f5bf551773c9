"""Rows of a Parquet file without the images in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from blip2_train.data.annotations.rows import ListRows
from blip2_train.data.storage.remote import AnyFile, RemoteFile, Storage
from blip2_train.errors import ShardError
from blip2_train.system.extras import import_extra

EMBEDDED = b""
"""Value of a cell in place of the content of an image file, which is not read."""


def parquet_rows(file: Path) -> ListRows:
    """All rows of a file, in memory; of an image that is kept as `{"bytes", "path"}`, the path.

    Raises:
        ConfigError: if pyarrow is not installed.
        ShardError: if the file cannot be read.
    """
    parquet = open_parquet(file)
    fields = {field.name: str(field.type) for field in parquet.schema_arrow}
    # Columns with bytes, alone or beside a path: Hugging Face's images.
    embedded = {name for name, kind in fields.items() if "binary" in kind}
    paths = [f"{name}.path" for name in embedded if "path: string" in fields[name]]
    try:
        rows: list[dict[str, Any]] = parquet.read(columns=[*(fields.keys() - embedded), *paths]).to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's errors are of both kinds
        raise ShardError(f"{file} is no readable Parquet file ({error}); get it again") from None
    return ListRows(file, [{name: _value(row.get(name, EMBEDDED)) for name in fields} for row in rows], "row")


def open_parquet(path: AnyFile) -> Any:
    """A Parquet file of pyarrow.

    Raises:
        ConfigError: if pyarrow is not installed.
        ShardError: if the file cannot be read.
    """
    parquet = import_extra("pyarrow.parquet", f"the Parquet file {path}")
    try:
        return parquet.ParquetFile(Storage().open(path) if isinstance(path, RemoteFile) else path, buffer_size=1 << 20)
    except (OSError, ValueError) as error:
        raise ShardError(f"{path} is no readable Parquet file ({error}); get it again") from None


def _value(value: Any) -> Any:
    """The path of an image that is stored together with its path; any other value unchanged."""
    return value["path"] or EMBEDDED if isinstance(value, dict) and value.keys() == {"path"} else value
