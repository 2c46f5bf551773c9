"""The benchmark's own settings, taken out of a command line that otherwise holds a recipe's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from blip2_train.config.key_values import READ, split_settings
from blip2_train.errors import ConfigError

if TYPE_CHECKING:
    import torch

Part = TypeVar("Part")
PRECISIONS = {"fp16": "float16", "32": "float32", "bf16": "bfloat16"}
"""Names of torch's types."""
SYNTAX = """\
  batch_size=<n>     samples per step (CPU 4, GPU 100)
  device=cpu|cuda    where to run (cuda if there is one)
  plans=<a,b,…>      what to compare, step by step in turn (most of them if not given)
                     stage 1: plain, released, released_sdpa, padded, shared, compiled
                     stage 2: huggingface, all_positions, labelled, compiled
                     both: tower, tower_compiled, tower_8_bits
  steps=<n>          timed steps per plan (CPU 5, GPU 10), after one or more to warm up
  vision=false       give random patch features to the Q-Former instead of images to the tower
  loader=true        read batches by the recipe's data instead of making random ones
  precision=32|bf16|fp16
                     arithmetic of the Q-Former, and in stage 2 of the frozen parts (CPU 32, GPU bf16); with several,
                     32,bf16, one table each
  tokens=<a>-<b>     real tokens per caption (10-16)
  generate=false     stage 2: only train, generate no text
  new_tokens=<n>     stage 2: tokens generated for each image (20)
  beams=<n>          stage 2: beams of the search that is timed beside greedy generation (5)
  json=<file>        write all figures there too"""


def _range(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    if not (low.isdecimal() and (high or low).isdecimal()):
        raise ConfigError(f"tokens={text}: write the fewest and the most, two whole numbers: tokens=10-16")
    return int(low), int(high or low)


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """What to measure and how."""

    device: str
    batch_size: int
    """Samples per step."""
    plans: tuple[str, ...] = ()
    """What to compare; empty = the stage's own choice."""
    steps: int
    """Timed steps per plan."""
    vision: bool = True
    loader: bool = False
    precision: str
    """Key of `PRECISIONS`, or several with commas between them."""
    tokens: tuple[int, int] = field(default=(10, 16), metadata={READ: _range})
    """Fewest and most real tokens of a caption, with `[CLS]` and `[SEP]`."""
    generate: bool = True
    new_tokens: int = 20
    """Tokens generated for each image."""
    beams: int = 5
    json: Path | None = None

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "cuda"):
            raise ConfigError(f"device={self.device} is unknown; use cpu or cuda")
        if self.device == "cuda" and not _has_gpu():
            raise ConfigError("device=cuda, but torch sees no GPU; use device=cpu")
        for name in ("batch_size", "steps", "new_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.beams < 2:
            raise ConfigError(f"beams must be at least 2, got {self.beams}; one beam is greedy, which is timed anyway")
        for precision in self.precision.split(","):
            if precision not in PRECISIONS:
                raise ConfigError(f"precision={precision} is unknown; use fp16, 32 or bf16")
        if not 2 <= self.tokens[0] <= self.tokens[1]:
            raise ConfigError(f"tokens={self.tokens[0]}-{self.tokens[1]}: write the fewest and the most, from 2 up")
        if self.loader and not self.vision:
            raise ConfigError("loader=true reads images, but vision=false leaves the tower out; drop one of the two")

    def each_precision(self) -> list[BenchmarkOptions]:
        """These options with one precision at a time."""
        return [replace(self, precision=precision) for precision in self.precision.split(",")]


def split_options(arguments: Sequence[str]) -> tuple[BenchmarkOptions, list[str]]:
    """The benchmark's options, and the arguments that belong to the recipe.

    Raises:
        ConfigError: if a value cannot be used.
    """
    return split_settings(arguments, BenchmarkOptions, _usual)


def precision_type(precision: str) -> torch.dtype:
    """The type of torch that a key of `PRECISIONS` stands for."""
    import torch

    dtype: torch.dtype = getattr(torch, PRECISIONS[precision])
    return dtype


def _has_gpu() -> bool:
    import torch  # late: help needs none

    return torch.cuda.is_available()


def _usual(given: Mapping[str, Any]) -> dict[str, Any]:
    device = given.get("device", "cuda" if _has_gpu() else "cpu")
    if device == "cuda":
        return {"device": device, "batch_size": 100, "steps": 10, "precision": "bf16"}
    return {"device": device, "batch_size": 4, "steps": 5, "precision": "32"}


def read_part(arguments: Sequence[str], kind: type[Part], *, part: str) -> Part:
    """The options of a part that measures no recipe, and so takes no other setting.

    Raises:
        ConfigError: if an argument is unknown or a value cannot be used.
    """
    options, rest = split_settings(arguments, kind)
    if rest:
        names = ", ".join(sorted(field.name for field in fields(cast(Any, kind))))
        raise ConfigError(f"{rest[0]}: part={part} takes {names}; it measures no recipe")
    return options
