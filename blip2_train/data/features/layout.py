"""How the features of one crop are stored: a safetensors file, in which rounded rows have a scale each.

Shape letters: P patches with prefix tokens, Dv width of the tower.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

import torch
from safetensors.torch import save
from torch import Tensor

from blip2_train.errors import ConfigError, ShardError

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_CODES = {8: torch.int8, 16: torch.int16}
_BLOCK = 512
"""Bytes of a block of a tar file."""


@dataclass(frozen=True, kw_only=True)
class FeatureLayout:
    """The numbers of one crop, and the bytes that hold them.

    Features that a tower computes in 16 bits are stored in 16 bits as they are. Those of a float32 tower are rounded to
    integers of 16 bits, with the largest of each row as 32,767; in 8 bits all are, with the largest as 127.

    Raises:
        ConfigError: if the features cannot be stored in so many bits.
    """

    patches: int
    """P."""
    width: int
    """Dv."""
    dtype: str
    """Precision in which the tower computes, and in which features are read: `float32`, `float16` or `bfloat16`."""
    bits: int
    """Bits per number: 8, 16, or 32 for a float32 tower."""

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise ConfigError(f"dtype must be {', '.join(_DTYPES)}, got {self.dtype!r}")
        if self.bits not in (8, 16, 32):
            raise ConfigError(f"bits must be 8, 16 or 32, got {self.bits}")
        if self.bits == 32 and self.dtype != "float32":
            raise ConfigError(f"bits=32 is for float32 towers; 16 bits hold the features of a {self.dtype} one exactly")

    @property
    def rounds(self) -> bool:
        """Whether numbers are rounded to integers."""
        return self.bits == 8 or (self.bits == 16 and self.dtype == "float32")

    @property
    def size(self) -> int:
        """Bytes of a file."""
        return len(self._header) + self._length

    @property
    def stride(self) -> int:
        """Bytes of a file in a shard, with its header and padding."""
        return _BLOCK + -(-self.size // _BLOCK) * _BLOCK

    def encode(self, features: Tensor) -> bytes:
        """The file of a crop's features `(P, Dv)`.

        Raises:
            ShardError: if a number is not finite.
        """
        if not torch.isfinite(features).all():
            raise ShardError(
                "the tower gave numbers that are not finite; give model.vision.dtype=float32, or other weights"
            )
        return save(self._tensors(features.detach().cpu()))

    def decode(self, content: bytes) -> Tensor:
        """Features `(P, Dv)` of a file, in the tower's precision.

        Raises:
            ShardError: if the content is no such file.
        """
        if len(content) != self.size or not content.startswith(self._header):
            raise ShardError("what is stored is not what was written")
        data = bytearray(content)
        stored = self._part(data, "features", _CODES[self.bits] if self.rounds else _DTYPES[self.dtype])
        numbers = stored.view(self.patches, self.width)
        if not self.rounds:
            return numbers
        scales = self._part(data, "scales", torch.float32)
        return (numbers * scales[:, None]).to(_DTYPES[self.dtype])

    def _tensors(self, features: Tensor) -> dict[str, Tensor]:
        if not self.rounds:
            return {"features": features.to(_DTYPES[self.dtype]).contiguous()}
        features = features.float()
        largest = 2 ** (self.bits - 1) - 1
        scales = (features.abs().amax(dim=1) / largest).clamp_min(torch.finfo(torch.float32).tiny)
        codes = (features / scales[:, None]).round().clamp(-largest, largest)
        return {"features": codes.to(_CODES[self.bits]), "scales": scales}

    def _part(self, data: bytearray, name: str, dtype: torch.dtype) -> Tensor:
        first, last = self._spans[name]
        return torch.frombuffer(data, dtype=dtype, offset=first, count=(last - first) // dtype.itemsize)

    @cached_property
    def _header(self) -> bytes:
        """What every file begins with."""
        content = save(self._tensors(torch.zeros(self.patches, self.width)))
        return content[: 8 + int.from_bytes(content[:8], "little")]

    @cached_property
    def _spans(self) -> dict[str, tuple[int, int]]:
        """First byte of each tensor in a file, and the one behind it."""
        parts = json.loads(self._header[8:])
        start = len(self._header)
        return {
            name: (start + part["data_offsets"][0], start + part["data_offsets"][1]) for name, part in parts.items()
        }

    @cached_property
    def _length(self) -> int:
        """Bytes of the tensors."""
        return max(last for _, last in self._spans.values()) - len(self._header)
