"""From pictures and texts as people have them to what a model reads, and back: the same in training and in use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from blip2_train.data.language_tokenizer import AnsweringTokenizer, LanguageTokenizer
from blip2_train.data.pictures import decode_picture, upright_rgb
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.text import EMPTY, clean_caption, is_unicode, text_fault
from blip2_train.data.transforms import EvalTransform
from blip2_train.errors import ConfigError, ShardError
from blip2_train.questions import TextTokens

Picture = str | Path | Image.Image | Tensor
"""A file, a picture of any mode and size, or pixel values `(3, H, W)` that were processed before."""
Pictures = Picture | Iterable[Picture]


@dataclass(frozen=True, kw_only=True)
class Processor:
    """What a model needs around it.

    Either tokenizer may be None: a stage-1 model reads texts with the Q-Former's, a generative one with that of its
    language model.
    """

    image_size: int
    """Pixels per side of the square input."""
    max_text_length: int
    """Tokens per text in training, with the first and the last."""
    mean: tuple[float, ...]
    """What is subtracted per channel, of values in 0 … 1: as in training."""
    std: tuple[float, ...]
    """What is divided by after that."""
    text_tokenizer: Any = None
    """The Q-Former's, as `load_qformer_tokenizer` gives it, of models that read texts without a language model."""
    language_tokenizer: LanguageTokenizer | None = None
    """The language model's, padding on the left; an `AnsweringTokenizer` if the Q-Former reads questions."""
    prompt: str = ""
    """What captions start from, or the form of questions, unless something else is asked for."""

    def images(self, pictures: Sequence[Picture]) -> Tensor:
        """Pixel values `(B, 3, H, W)` of pictures.

        Raises:
            ShardError: naming a file that is no readable picture.
            ConfigError: if pixel values are not of this model's size.
        """
        return torch.stack([self.image(picture) for picture in pictures])

    def image(self, picture: Picture) -> Tensor:
        """Pixel values `(3, H, W)` of one picture.

        Raises:
            ShardError: naming a file that is no readable picture.
            ConfigError: if pixel values are not of this model's size.
        """
        if isinstance(picture, Tensor):
            if picture.shape != (3, self.image_size, self.image_size):
                raise ConfigError(
                    f"pixel values have shape {tuple(picture.shape)}, but this model reads (3, {self.image_size}, "
                    f"{self.image_size}); give the picture itself, or what Processor.image makes of it"
                )
            return picture
        return EvalTransform(self.image_size, self.mean, self.std)(open_picture(picture), torch.Generator())

    def texts(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids `(B, T)` and mask `(B, T)`, bool, of texts for the Q-Former, cleaned and cut as in training.

        Raises:
            ConfigError: if nothing is left of a text, or it is not Unicode.
        """
        cleaned = [clean_caption(text) for text in texts]
        for text, clean in zip(texts, cleaned, strict=True):
            if text_fault(text, clean) == EMPTY:
                raise ConfigError(f"text {text!r} is empty once cleaned as in training; leave it out, or write words")
        _refuse_broken(texts)
        batch = self.text_tokenizer(
            cleaned, padding="longest", truncation=True, max_length=self.max_text_length, return_tensors="pt"
        )
        return batch["input_ids"], batch["attention_mask"].bool()

    def prompts(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids `(B, S)` and mask `(B, S)`, bool, of prompts for the language model, never cut, padded on the left.

        Raises:
            ConfigError: if a prompt is not Unicode.
        """
        assert self.language_tokenizer is not None
        _refuse_broken(prompts)
        return self.language_tokenizer.padded([self.language_tokenizer.prompt(prompt) for prompt in prompts])

    def questions(self, questions: Sequence[str]) -> TextTokens:
        """Questions for a Q-Former that reads them, cut as in training.

        Raises:
            ConfigError: if a question is not Unicode.
        """
        assert isinstance(self.language_tokenizer, AnsweringTokenizer)
        _refuse_broken(questions)
        return self.language_tokenizer.questions(questions, self.max_text_length)

    def describe(self) -> dict[str, Any]:
        """Plain values from which, with the tokenizer's files, the processor can be made again."""
        return {
            "image_size": self.image_size,
            "max_text_length": self.max_text_length,
            "mean": [float(value) for value in self.mean],
            "std": [float(value) for value in self.std],
            "prompt": self.prompt,
        }

    @property
    def tokenizer(self) -> Any:
        """The tokenizer there is."""
        return self.text_tokenizer if self.language_tokenizer is None else self.language_tokenizer


def listed(pictures: Pictures) -> list[Picture]:
    """Pictures as a list; a single one is a list of one."""
    if isinstance(pictures, str | Path | Image.Image) or (isinstance(pictures, Tensor) and pictures.ndim == 3):
        return [pictures]
    return list(pictures)


def open_picture(picture: str | Path | Image.Image) -> Image.Image:
    """A picture in mode RGB, turned as its EXIF data says.

    Raises:
        ShardError: naming the file, if it is no readable picture.
    """
    if isinstance(picture, Image.Image):
        try:
            picture.load()  # Pillow reads a file only when its pixels are asked for
            return upright_rgb(picture)
        except (OSError, SyntaxError, ValueError) as error:
            raise _unreadable(getattr(picture, "filename", "") or "the picture", str(error)) from error
    path = Path(picture).expanduser()
    try:
        return decode_picture(path.read_bytes())
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    except UnusableSample as error:
        raise _unreadable(path, f"{error.reason}: {error.detail}") from error


def _refuse_broken(texts: Sequence[str]) -> None:
    if (broken := next((text for text in texts if not is_unicode(text)), None)) is not None:
        raise ConfigError(f"text {broken!r} is not Unicode (it holds half a character); write it again in UTF-8")


def _unreadable(what: str | Path, reason: str) -> ShardError:
    reason = " ".join(reason.split())[:150]
    return ShardError(f"{what} is no picture that can be read ({reason}); leave it out, or save it again")
