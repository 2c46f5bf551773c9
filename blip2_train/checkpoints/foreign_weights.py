"""Weights read from a file or folder of any format, under this project's names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from blip2_train.checkpoints.export import Manifest
from blip2_train.models.freezing import FROZEN_PARTS

State = dict[str, Tensor]


def held_parts(names: Iterable[str]) -> frozenset[str]:
    """The parts, of those frozen in training, that weights of these names belong to.

    Example:
        >>> sorted(held_parts(["query_tokens", "vision_model.tower.cls_token"]))
        ['vision_model']
    """
    first = {name.partition(".")[0] for name in names}
    return frozenset(part for part in FROZEN_PARTS if part in first)


@dataclass(kw_only=True)
class SourceWeights:
    """Description and weights read from a file or folder."""

    source: str
    """Its kind, for messages: `Hugging Face Blip2ForConditionalGeneration`."""
    location: str
    """Path or hub id."""
    description: dict[str, Any]
    """The model, as `build_model` reads it; the tower's mean and std are those of `processor`."""
    state: State
    """Weights under this project's names."""
    processor: dict[str, Any]
    """As `Processor.describe`."""
    manifest: Manifest
    adapters: State = field(default_factory=dict)
    """Weights of the adapters of the language model, if the description names some."""
    tokenizer: str = ""
    """Folder with the tokenizer; empty = that of the language model, or of the BERT that the Q-Former started from."""
    config: str = ""
    """Configuration of the run, as YAML text."""
    their_name: Callable[[str], str | None] = lambda name: name
    """Name of a weight in the file, for messages."""
    fit: Callable[[State, Mapping[str, Tensor]], State] = lambda state, expected: state
    """Changes the tensors of the file into those that the model expects, by name."""
    may_miss: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    """Keys of the file that are not needed, in its own names."""
    held: frozenset[str] = field(init=False)
    """The parts, of those frozen in training, that the file holds itself."""

    def __post_init__(self) -> None:
        read = {name: self.processor[name] for name in ("mean", "std") if self.processor.get(name) is not None}
        self.description = {**self.description, "vision": {**self.description.get("vision", {}), **read}}
        self.held = held_parts(self.state)

    @property
    def what(self) -> str:
        """Its name in messages."""
        return f"{self.source} {self.location}"

    @property
    def short(self) -> str:
        """Its short name in reports: that of an export has no stage."""
        return f"export {self.location}" if self.own else f"{self.what} (converted)"

    @property
    def own(self) -> bool:
        """Whether it is an export of this project, which names the SHA-256 of its weights."""
        return bool(self.manifest.sha256)
