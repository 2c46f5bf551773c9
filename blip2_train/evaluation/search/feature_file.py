"""Features of any number of images or texts in one `.npz` or `.safetensors` file, without holding them in memory."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from torch import Tensor

from blip2_train.errors import ConfigError
from blip2_train.evaluation.search.index_record import RECORD, IndexRecord, names_hash

SUFFIXES = (".npz", ".safetensors")
_SAFETENSORS_NAMES = {"float32": "F32", "bool": "BOOL"}


class FeatureFile:
    """Rows of named arrays, collected in temporary files beside the result, which appears when all is there.

    Beside them the file says which model computed them, with checksums (`IndexRecord`), so that it can be searched.

    Args:
        path: `.npz` (with the arrays `image` and `text`: name and text of each row) or `.safetensors` (with the same as
            JSON lists in its metadata).

    Raises:
        ConfigError: if it has another suffix.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix not in SUFFIXES:
            raise ConfigError(
                f"--output {path} is neither {' nor '.join(SUFFIXES)}; features are written as one of them"
            )
        self.path, self.rows = path, 0
        self.model = self.source = ""
        """Fingerprint and origin of the model; set them before the file is closed."""
        self._arrays: dict[str, tuple[IO[bytes], np.dtype[Any], tuple[int, ...]]] = {}
        self._hashes: dict[str, Any] = {}
        self._labels: dict[str, list[str]] = {}
        self._open = ExitStack()

    def __enter__(self) -> FeatureFile:
        self._folder = Path(
            self._open.enter_context(tempfile.TemporaryDirectory(prefix=".features-", dir=self.path.parent))
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and self.rows:
                self._finish()
        finally:
            self._open.close()

    def add(self, features: Mapping[str, Tensor], labels: Mapping[str, list[str]]) -> None:
        """Add rows: tensors `(rows, …)` and, for each row, what it is of (`image`, `text`)."""
        for name, tensor in features.items():
            array = tensor.numpy()
            if name not in self._arrays:
                file = self._open.enter_context((self._folder / name).open("wb"))
                self._arrays[name] = (file, array.dtype, array.shape[1:])
                self._hashes[name] = hashlib.sha256()
            content = np.ascontiguousarray(array).tobytes()
            self._arrays[name][0].write(content)
            self._hashes[name].update(content)
        for name, values in labels.items():
            self._labels.setdefault(name, []).extend(values)
        self.rows += len(next(iter(features.values())))

    def _finish(self) -> None:
        for file, _, _ in self._arrays.values():
            file.close()
        hashes = {name: value.hexdigest() for name, value in self._hashes.items()}
        hashes |= {name: names_hash(values) for name, values in self._labels.items()}
        record = IndexRecord(model=self.model, source=self.source, sha256=hashes).as_json()
        unfinished = self._folder / "unfinished"
        (self._write_npz if self.path.suffix == ".npz" else self._write_safetensors)(unfinished, record)
        os.replace(unfinished, self.path)

    def _write_npz(self, path: Path, record: str) -> None:
        arrays: dict[str, Any] = {name: np.array(values) for name, values in self._labels.items()}
        arrays[RECORD] = np.array(record)
        for name, (_, dtype, shape) in self._arrays.items():
            arrays[name] = np.memmap(self._folder / name, dtype, "r", shape=(self.rows, *shape))
        with path.open("wb") as file:  # written array by array
            np.savez(file, **arrays)

    def _write_safetensors(self, path: Path, record: str) -> None:
        labels = {name: json.dumps(values) for name, values in self._labels.items()}
        header: dict[str, Any] = {"__metadata__": labels | {RECORD: record}}
        names = sorted(self._arrays, key=lambda name: -self._arrays[name][1].itemsize)  # so that floats stay aligned
        end = 0
        for name in names:
            _, dtype, shape = self._arrays[name]
            start, end = end, end + self.rows * int(np.prod(shape)) * dtype.itemsize
            kind = _SAFETENSORS_NAMES[dtype.name]
            header[name] = {"dtype": kind, "shape": [self.rows, *shape], "data_offsets": [start, end]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name in names:
                with (self._folder / name).open("rb") as part:
                    shutil.copyfileobj(part, file, 1 << 20)
