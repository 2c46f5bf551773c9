"""Converts images and texts to the inputs of a model, in the same way as in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor
from transformers import BatchFeature

from blip2_train.data.batches.image_inputs import (
    ImageInput,
    ImageInputs,
    PixelValues,
    listed,
    open_image,
    processed_before,
)
from blip2_train.data.batches.language_tokenizer import AnsweringTokenizer, LanguageTokenizer
from blip2_train.data.batches.qformer_tokenizer import IMAGE_TOKEN
from blip2_train.data.batches.transforms import EvalTransform
from blip2_train.data.storage.web import WebLimits
from blip2_train.data.text_cleaning import EMPTY, clean_caption, is_unicode, text_fault
from blip2_train.errors import ConfigError
from blip2_train.system.devices import find_device
from blip2_train.transformers_names import FOR_A_PROCESSOR, OF_A_PROCESSOR, holds_anyway, no_attribute
from blip2_train.types import TextTokens


@dataclass(frozen=True, kw_only=True)
class Processor:
    """Image transform and tokenizers of a model.

    Either tokenizer may be None: a stage-1 model uses the Q-Former's, a generative one that of its language model.
    """

    image_size: int
    """Pixels per side of the square input."""
    max_text_length: int
    """Tokens per text in training, with the first and the last."""
    mean: tuple[float, ...]
    """Mean per channel, of values in 0 … 1, that is subtracted as in training."""
    std: tuple[float, ...]
    """Standard deviation per channel, by which values are divided after that."""
    text_tokenizer: Any = None
    """The Q-Former's, as `load_qformer_tokenizer` gives it, of models that read texts without a language model."""
    language_tokenizer: LanguageTokenizer | None = None
    """The language model's, padding on the left; an `AnsweringTokenizer` if the Q-Former reads questions."""
    prompt: str = ""
    """Default start of captions, or default template of questions."""
    web: WebLimits = field(default_factory=WebLimits)
    """What may be fetched of images given as `http(s)://` addresses."""
    num_query_tokens: int = 0
    """Placeholders in front of a prompt's ids that stand for an image, as transformers has them, in `__call__` alone; a
    model that is loaded sets it."""

    def __call__(
        self,
        images: ImageInputs | None = None,
        text: str | Sequence[str] | None = None,
        *,
        return_tensors: str = "pt",
        padding: bool | str = True,
        **others: Any,
    ) -> BatchFeature:
        """What a model reads of images and texts, by transformers' names.

        Args:
            images: N images, or one.
            text: A text for each image, or a single one.
            return_tensors: "pt" alone: torch's tensors.
            padding: Texts are always padded to the longest.
            **others: None that would change anything: texts are cut, and get their special tokens, as in training.

        Returns:
            `pixel_values` `(N, 3, H, W)`; of texts `input_ids` and `attention_mask` `(N, T)`, int64. A mapping with
            `.to(device, dtype)`, which raises a `ConfigError` for a device that is not there.

        Raises:
            ConfigError: if there is neither, there are more or fewer texts than images, or what the others raise.
            ShardError: naming a file that is no readable image.
        """
        if images is None and text is None:
            raise ConfigError("neither images nor text is given; give one of them, or both")
        if return_tensors != "pt" or padding not in (True, "longest"):
            raise ConfigError(
                f"return_tensors={return_tensors!r}, padding={padding!r}: this processor gives torch's tensors, "
                "padded to the longest text; leave both out"
            )
        _refuse_others(others)
        batch: dict[str, Tensor] = {}
        if text is not None:
            texts = [text] if isinstance(text, str) else list(text)
            batch |= self.prompt_batch(texts, 0 if images is None else self.num_query_tokens)
        if images is not None:
            pixels = self.images(images)
            if text is not None and len(pixels) != len(texts):
                raise ConfigError(
                    f"{len(pixels)} images, but {len(texts)} texts; give a text for each image (model.match scores "
                    "each of some images with each of some texts)"
                )
            batch["pixel_values"] = pixels
        return ModelInputs(batch)

    def prompt_batch(self, texts: Sequence[str], placeholders: int) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask` `(N, placeholders + T)`, int64, of texts; raises as `texts`."""
        read = self.texts(texts) if self.language_tokenizer is None else self.prompts(texts)
        front = torch.full((len(texts), placeholders), self.placeholder_id)
        ids = torch.cat([front, read[0]], dim=1)
        return {"input_ids": ids, "attention_mask": torch.cat([torch.ones_like(front), read[1].long()], dim=1)}

    @property
    def placeholder_id(self) -> int:
        """Id of the placeholders of an image: of `<image>` if the vocabulary was given it, or a new one."""
        return int(self.tokenizer.get_added_vocab().get(IMAGE_TOKEN, len(self.own_tokenizer)))

    def batch_decode(
        self, ids: Tensor | Sequence[Sequence[int]], skip_special_tokens: bool = False, **options: Any
    ) -> list[str]:
        """Texts of rows of ids; arguments as for `decode`."""
        return [self.decode(row, skip_special_tokens, **options) for row in ids]

    def decode(self, ids: Tensor | Sequence[int], skip_special_tokens: bool = False, **options: Any) -> str:
        """The text of ids.

        Args:
            ids: `(T,)`; placeholders of an image are left out.
            skip_special_tokens: Leave out starts, ends and padding.
            **options: Others of the tokenizer's own `decode`, such as `clean_up_tokenization_spaces`.
        """
        row = ids.tolist() if isinstance(ids, Tensor) else list(ids)
        known = [number for number in row if number != self.placeholder_id]
        return str(self.tokenizer.decode(known, skip_special_tokens=skip_special_tokens, **options))

    if not TYPE_CHECKING:  # a type checker knows which attributes there are

        def __getattr__(self, name: str) -> Any:
            """Lead on from a name of transformers; called for what is not there alone.

            Raises:
                AttributeError: always.
            """
            raise no_attribute("a processor", name, OF_A_PROCESSOR)

    def __repr__(self) -> str:
        tokenizers = [type(one).__name__ for one in (self.text_tokenizer, self.language_tokenizer) if one is not None]
        return (
            f"Processor(image_size={self.image_size}, max_text_length={self.max_text_length}, mean={self.mean}, "
            f"std={self.std}, tokenizers=[{', '.join(tokenizers)}], prompt={self.prompt!r})"
        )

    def images(self, images: ImageInputs) -> Tensor:
        """Pixel values `(B, 3, H, W)` of images of any kind; a single one counts as a list of one.

        Raises:
            ShardError: naming a file that is no readable image.
            ConfigError: if it is nothing of which an image can be made, or pixel values are not of this model's size.
        """
        return PixelValues.of(torch.stack([self.image(image) for image in listed(images)]))

    def image(self, image: ImageInput) -> Tensor:
        """Pixel values `(3, H, W)` of one image of any kind; errors as for `images`."""
        if isinstance(image, Tensor) and processed_before(image, self.image_size):
            return image
        opened = open_image(image, self.web)
        return PixelValues.of(EvalTransform(self.image_size, self.mean, self.std)(opened, torch.Generator()))

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
        return self.language_tokenizer.padded([self.language_tokenizer.prompt_ids(prompt) for prompt in prompts])

    def questions(self, questions: Sequence[str]) -> TextTokens:
        """Questions for a Q-Former that reads them, cut as in training.

        Raises:
            ConfigError: if a question is not Unicode.
        """
        assert isinstance(self.language_tokenizer, AnsweringTokenizer)
        _refuse_broken(questions)
        return self.language_tokenizer.questions(questions, self.max_text_length)

    def describe(self) -> dict[str, Any]:
        """Plain values from which, with the tokenizer's files, the processor can be built again."""
        return {
            "image_size": self.image_size,
            "max_text_length": self.max_text_length,
            "mean": [float(value) for value in self.mean],
            "std": [float(value) for value in self.std],
            "prompt": self.prompt,
        }

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of transformers: of the language model if there is one, else the Q-Former's."""
        return self.text_tokenizer if self.language_tokenizer is None else self.language_tokenizer.tokenizer

    @property
    def own_tokenizer(self) -> Any:
        """The same with what this project adds to it: `language_tokenizer` if there is one, else the Q-Former's."""
        return self.text_tokenizer if self.language_tokenizer is None else self.language_tokenizer


class ModelInputs(BatchFeature):
    """What `Processor` gives to `model.generate(**inputs)`."""

    def to(self, *arguments: Any, **options: Any) -> Self:
        """Move to a device, and bring what is no integer to a precision.

        Raises:
            ConfigError: if there is no such device here.
        """
        super().to(*map(_as_device, arguments), **{name: _as_device(value) for name, value in options.items()})
        return self


def _as_device(target: Any) -> Any:
    """The device of a name or number; what is neither stays."""
    return find_device(target) if isinstance(target, str | int) and not isinstance(target, bool) else target


def _refuse_others(given: Mapping[str, Any]) -> None:
    """Refuse arguments that transformers' processor has, unless their values change nothing.

    Raises:
        ConfigError: naming the first of them.
    """
    for name, value in given.items():
        if not holds_anyway(name, value, FOR_A_PROCESSOR):
            instead = "texts for a Q-Former are cut to max_text_length as in training, prompts never"
            raise ConfigError(f"this processor has no {name}={value!r}; leave it out: {instead}")


def _refuse_broken(texts: Sequence[str]) -> None:
    if (broken := next((text for text in texts if not is_unicode(text)), None)) is not None:
        raise ConfigError(f"text {broken!r} is not Unicode (it holds half a character); write it again in UTF-8")
