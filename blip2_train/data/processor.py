"""From pictures and texts as people have them to what a model reads, and back: the same in training and in use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from blip2_train.data.language_tokenizer import LanguageTokenizer
from blip2_train.data.pictures import decode_picture, upright_rgb
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.text import clean_caption
from blip2_train.data.transforms import CLIP_MEAN, CLIP_STD, EvalTransform
from blip2_train.errors import ShardError

Picture = str | Path | Image.Image


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
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    text_tokenizer: Any = None
    """The Q-Former's, as `load_qformer_tokenizer` gives it."""
    language_tokenizer: LanguageTokenizer | None = None
    """The language model's, padding on the left."""
    prompt: str = ""
    """What captions start from unless something else is asked for."""

    def images(self, pictures: Sequence[Picture]) -> Tensor:
        """Pixel values `(B, 3, H, W)` of pictures: paths or PIL images of any mode and size.

        Raises:
            ShardError: naming a file that is no readable picture.
        """
        transform = EvalTransform(self.image_size, self.mean, self.std)
        return torch.stack([transform(_opened(picture), torch.Generator()) for picture in pictures])

    def texts(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids `(B, T)` and mask `(B, T)`, bool, of texts for the Q-Former, cleaned and cut as in training."""
        batch = self.text_tokenizer(
            [clean_caption(text) for text in texts],
            padding="longest",
            truncation=True,
            max_length=self.max_text_length,
            return_tensors="pt",
        )
        return batch["input_ids"], batch["attention_mask"].bool()

    def prompts(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids `(B, S)` and mask `(B, S)`, bool, of prompts for the language model, never cut, padded on the left."""
        assert self.language_tokenizer is not None
        return self.language_tokenizer.padded([self.language_tokenizer.prompt(prompt) for prompt in prompts])

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
        return self.text_tokenizer if self.text_tokenizer is not None else self.language_tokenizer


def _opened(picture: Picture) -> Image.Image:
    """An RGB picture, turned as its EXIF says.

    Raises:
        ShardError: naming the file.
    """
    if isinstance(picture, Image.Image):
        return upright_rgb(picture)
    path = Path(picture)
    try:
        return decode_picture(path.read_bytes())
    except (OSError, UnusableSample) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ShardError(f"{path} is no picture that can be read ({reason}); leave it out or save it again") from error
