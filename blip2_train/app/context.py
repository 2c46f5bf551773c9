"""What all tabs of a page share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from blip2_train.app.access import Access
from blip2_train.app.examples import Example
from blip2_train.app.models import Models
from blip2_train.app.python_code import Call, loading_call


@dataclass(frozen=True, kw_only=True)
class Context:
    """Models, examples, and what was named when the app was started."""

    models: Models
    access: Access
    examples: Sequence[Example]
    folders: Sequence[str]
    """Folders of images that were named for the search."""
    sets: Sequence[str]
    """Data sets that were named."""
    temporary: Path
    """A folder that goes when the app ends."""

    def code(self, call: Call, source: str) -> str:
        """The program of a call."""
        return call.code(source.strip(), self.models.device, self.models.dtype)

    def loading(self, source: str) -> str:
        """The call that loads a model in a program."""
        return loading_call(source.strip(), self.models.device, self.models.dtype)
