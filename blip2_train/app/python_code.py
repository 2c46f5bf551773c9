"""A call of a model, which can be run and shown: the Python that gives the same result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blip2_train.evaluation.inference import Blip2

_LONG = 100
"""Characters of a line, at most, before it is broken."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call of a method of `Blip2`, with its arguments by their names."""

    method: str
    image: Path | None = None
    """File of the image that it is about."""
    copies: int = 1
    """How often the image is given."""
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def run(self, model: Blip2) -> Any:
        """What the method returns."""
        given = {} if self.image is None else {_image_argument(self.method): self._images(self.image)}
        return getattr(model, self.method)(**given, **self.arguments)

    def code(self, source: str, device: str = "cpu", dtype: str | None = None) -> str:
        """A program that loads the model, makes the call and prints what it returns; images are named without folder.

        Example:
            >>> print(Call(method="caption", image=Path("/tmp/a.jpg"), arguments={"num_beams": 3}).code("last:mine"))
            import blip2_train as b2
            <BLANKLINE>
            model, processor = b2.load_pretrained("last:mine", device="cpu")
            print(model.caption("a.jpg", num_beams=3))
        """
        return f"{loading_code(source, device, dtype)}\n{self.line()}"

    def line(self, model: str = "model") -> str:
        """The line that makes the call and prints what it returns, several if it is long.

        Args:
            model: What the program calls the model.
        """
        given = [] if self.image is None else [literal(self._images(self.image.name))]
        inline = [*given, *(f"{name}={literal(value)}" for name, value in self.arguments.items())]
        call = f"print({model}.{self.method}({', '.join(inline)}))"
        if len(call) <= _LONG:
            return call
        lines = [*given, *(_argument(name, value) for name, value in self.arguments.items())]
        return f"print(\n    {model}.{self.method}(\n        " + ",\n        ".join(lines) + ",\n    )\n)"

    def _images(self, image: Any) -> Any:
        return image if self.copies == 1 else [image] * self.copies


def loading_code(source: str, device: str = "cpu", dtype: str | None = None) -> str:
    """The lines that load a model."""
    return f"import blip2_train as b2\n\nmodel, processor = {loading_call(source, device, dtype)}"


def loading_call(source: str, device: str = "cpu", dtype: str | None = None) -> str:
    """The call that loads a model and its processor."""
    options = f", device={literal(device)}" + (f", dtype={literal(dtype)}" if dtype else "")
    return f"b2.load_pretrained({literal(source)}{options})"


def literal(value: Any) -> str:
    r"""A value as Python writes it, with double quotes.

    Example:
        >>> print(literal({"texts": ["a \"red\" bus", 'b'], "rounds": [("why?", "so")], "prompt": None}))
        {"texts": ["a \"red\" bus", "b"], "rounds": [("why?", "so")], "prompt": None}
    """
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        inside = ", ".join(map(literal, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' if len(value) == 1 else ''})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(key)}: {literal(one)}" for key, one in value.items()) + "}"
    return repr(value)


def _argument(name: str, value: Any) -> str:
    """An argument in a line of its own; a long list with a line for each of its values."""
    written = f"{name}={literal(value)}"
    if not isinstance(value, list) or len(written) <= _LONG // 2:
        return written
    return f"{name}=[\n" + "".join(f"            {literal(one)},\n" for one in value) + "        ]"


def _image_argument(method: str) -> str:
    return "image" if method == "chat" else "images"
