"""Captions of an image, as the caption tab asks for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blip2_train.app.python_code import Call
from blip2_train.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """How text is generated; 0 stands for the model's own default."""

    sampled: bool = False
    """Nucleus sampling, not beam search."""
    num_beams: int = 0
    top_p: float = 0.9
    temperature: float = 1.0
    max_new_tokens: int = 0
    min_new_tokens: int = 0
    length_penalty: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0
    """Of sampling."""

    def arguments(self) -> dict[str, Any]:
        """The options of generation that differ from the model's own."""
        counts = ("max_new_tokens", "min_new_tokens") if self.sampled else ("num_beams", *_LENGTHS)
        given: dict[str, Any] = {name: int(getattr(self, name)) for name in counts if getattr(self, name)}
        if self.repetition_penalty != 1:
            given["repetition_penalty"] = self.repetition_penalty
        if self.sampled:
            return given | {
                "do_sample": True,
                "top_p": self.top_p,
                "temperature": self.temperature,
                "seed": int(self.seed),
            }
        return given | ({"length_penalty": self.length_penalty} if self.length_penalty != 1 else {})


_LENGTHS = ("max_new_tokens", "min_new_tokens")


def caption_call(image: str | None, settings: TextSettings, *, prompt: str = "", count: int = 1) -> Call:
    """The call for captions of an image.

    Args:
        image: Its file.
        settings: How they are generated.
        prompt: What they go on from; empty = as the model was trained.
        count: How many; more than one are sampled.

    Raises:
        ConfigError: if there is no image, or several captions are to be searched for.
    """
    if count > 1 and not settings.sampled:
        raise ConfigError("beam search finds one caption; choose sampling for several, or ask for one")
    arguments = ({"prompt": prompt} if prompt.strip() else {}) | settings.arguments()
    return Call(method="caption", image=needed_image(image), copies=count, arguments=arguments)


def needed_image(image: str | None) -> Path:
    """The file of an image.

    Raises:
        ConfigError: if there is none.
    """
    if image is None:
        raise ConfigError("there is no image yet; drop one, or click on an example")
    return Path(image)
