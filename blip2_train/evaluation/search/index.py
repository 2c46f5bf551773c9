"""Features that can be searched: held in memory, written to a file, and read from one with all its checks.

Shape letters: N rows of the index, Q queries, E feature size.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from blip2_train.data.batches.image_inputs import ImageInput
from blip2_train.errors import CheckpointMismatch, ConfigError, DamagedFile, ShardError
from blip2_train.evaluation.generation import batches
from blip2_train.evaluation.inference import AT_ONCE, Blip2
from blip2_train.evaluation.search.feature_file import SUFFIXES, FeatureFile
from blip2_train.evaluation.search.index_record import RECORD, IndexRecord, model_fingerprint, names_hash
from blip2_train.system.error_reasons import reason_of
from blip2_train.system.records import JsonObject, check_record, parse_record

Kind = Literal["image", "text"]
_FIX = "write it again by predict.py embed"


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchIndex:
    """Features of N images or of N texts, all by one model."""

    kind: Kind
    """What the rows are of."""
    names: Sequence[str]
    """Path or address of each image, or the texts themselves."""
    features: Tensor
    """`(N, Q, E)` of images, `(N, E)` of texts; float32, unit length along E."""
    model: str
    """Fingerprint of the model, see `model_fingerprint`."""
    source: str = "another model"
    """Its origin, for messages."""

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of_images(
        cls,
        model: Blip2,
        images: Sequence[ImageInput],
        names: Sequence[str],
        *,
        batch_size: int = AT_ONCE,
        broken: list[ShardError] | None = None,
    ) -> Self:
        """The index of images.

        Args:
            model: An image-text model.
            images: The images.
            names: One for each.
            batch_size: Images at once.
            broken: Takes the error of each image that cannot be read, which is left out; None = the first is raised.

        Raises:
            ConfigError: if the model reads no texts.
            ShardError: naming an image that cannot be read, without `broken`, or if none can.
        """
        _searchable(model)
        kept: list[str] = []
        parts: list[Tensor] = []
        for rows in batches(len(images), batch_size):
            read: list[ImageInput] = []
            for image, name in zip(images[rows], names[rows], strict=True):
                try:
                    read.append(model.processor.image(image))
                except ShardError as error:
                    if broken is None:
                        raise
                    broken.append(error)
                else:
                    kept.append(name)
            if read:
                parts.append(model.embed(read, batch_size=batch_size)["image_features"])
        if not parts:
            raise broken[0] if broken else ConfigError("there is no image to search; name some")
        return cls(kind="image", names=kept, features=torch.cat(parts), **_made_by(model))

    @classmethod
    def of_texts(cls, model: Blip2, texts: Sequence[str], *, batch_size: int = AT_ONCE) -> Self:
        """The index of texts, `batch_size` of them computed at once; raises as `Blip2.embed`."""
        features = _searchable(model).embed(texts=texts, batch_size=batch_size)["text_features"]
        return cls(kind="text", names=list(texts), features=features, **_made_by(model))

    def write(self, path: Path) -> None:
        """Write the index as `.npz` or `.safetensors`, as `predict.py embed` does.

        Raises:
            ConfigError: if it has another suffix.
        """
        with FeatureFile(path) as file:
            file.model, file.source = self.model, self.source
            file.add({f"{self.kind}_features": self.features}, {self.kind: list(self.names)})

    def check_model(self, model: Blip2, what: object = "the index") -> None:
        """Refuse an index whose features another model computed.

        Raises:
            CheckpointMismatch: naming both.
        """
        if model_fingerprint(_searchable(model)) != self.model:
            raise CheckpointMismatch(
                f"{what} was computed by {self.source}, with other weights or another precision than {model.source}; "
                "search with that model, or embed again with this one"
            )


def read_index(path: Path) -> SearchIndex:
    """Read the index that `predict.py embed` or `SearchIndex.write` wrote; of pairs, that of the images.

    Nothing in the file is executed, and only the arrays that are searched are read.

    Raises:
        ConfigError: if there is no such file, or nothing in it can be searched.
        DamagedFile: if it is not what was written.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"--index {path} is neither {' nor '.join(SUFFIXES)}; give what predict.py embed wrote")
    if not path.is_file():
        raise ConfigError(f"there is no index {path}; write one by predict.py embed --output {path.name}")
    with _unreadable(path), _opened(path) as (there, text, array, names):
        if RECORD not in there:
            raise ConfigError(f"{path} does not say which model computed it; {_FIX}")
        record = check_record(
            parse_record(text(RECORD), JsonObject, path, _FIX, DamagedFile), IndexRecord, path, _FIX, DamagedFile
        )
        kind: Kind = "image" if "image_features" in there else "text"
        if f"{kind}_features" not in there:
            raise ConfigError(
                f"{path} holds features of a generative model ({', '.join(sorted(there - {RECORD}))}), which compare "
                "with no text; embed with an image-text model (stage 1)"
            )
        features, listed = array(f"{kind}_features"), names(kind)
        hashes = {kind: names_hash(listed), f"{kind}_features": hashlib.sha256(features.data).hexdigest()}
        if any(record.sha256.get(name) != value for name, value in hashes.items()):
            raise DamagedFile(f"{path} is not what was written (SHA-256 differs); {_FIX}")
        if (
            features.dtype != np.float32
            or features.ndim != (3 if kind == "image" else 2)
            or len(features) != len(listed)
        ):
            raise DamagedFile(f"{path} holds {kind}_features of shape {features.shape} for {len(listed)} rows; {_FIX}")
    return SearchIndex(
        kind=kind, names=listed, features=torch.from_numpy(features), model=record.model, source=record.source
    )


def _searchable(model: Blip2) -> Blip2:
    model.image_text("search")
    return model


def _made_by(model: Blip2) -> dict[str, str]:
    return {"model": model_fingerprint(model), "source": model.source}


_Opened = tuple[set[str], Callable[[str], str], Callable[[str], Any], Callable[[str], list[str]]]
"""Names of what is there; the text, the array and the list of names of that name."""


@contextmanager
def _opened(path: Path) -> Iterator[_Opened]:
    if path.suffix == ".npz":
        with np.load(path) as file:
            yield (
                set(file),
                lambda name: str(file[name]),
                file.__getitem__,
                lambda name: [str(one) for one in file[name]],
            )
        return
    with safe_open(path, "np") as file:
        about = file.metadata() or {}

        def names(name: str) -> list[str]:
            return parse_record(about[name], list[str], path, _FIX, DamagedFile)

        yield {*file.keys(), *about}, about.__getitem__, file.get_tensor, names


@contextmanager
def _unreadable(path: Path) -> Iterator[None]:
    """Errors of the two formats in one line."""
    try:
        yield
    except (
        BufferError,
        TypeError,
        OSError,
        ValueError,
        KeyError,
        EOFError,
        MemoryError,
        zipfile.BadZipFile,
        zlib.error,
        SafetensorError,
    ) as error:
        raise DamagedFile(f"{path} cannot be read ({reason_of(error)}); {_FIX}") from None
