"""Several sampled captions of each image, each image's by a seed of its own.

Shape letters: B images, N captions of each, T new tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from blip2_train.evaluation.generation import Prompt, read_batches
from blip2_train.evaluation.inference import Blip2
from blip2_train.evaluation.precision import suitable_autocast
from blip2_train.evaluation.prompts import caption_prompt
from blip2_train.evaluation.qformer_captions import generate_captions
from blip2_train.models.configs import GenerationOptions
from blip2_train.models.generative import GenerativeModel


class Captioner(Protocol):
    """Samples captions. Those of an image follow from it and its seed, but for rounding: not from its neighbours."""

    def __call__(
        self, images: Sequence[Image.Image], seeds: Sequence[int], count: int, options: GenerationOptions
    ) -> list[list[str]]:
        """N captions of each of B images, which are encoded once, in one batch.

        Args:
            images: B of them.
            seeds: One for each.
            count: N.
            options: With `do_sample` and one beam.

        Raises:
            ConfigError: if so many new tokens are more than the model can generate.
        """
        ...

    def weights(self) -> dict[str, Tensor]:
        """Everything that decides the captions."""
        ...


class Blip2Captioner:
    """Captions by a model of this project: through its language model, or by the Q-Former of stage 1.

    Args:
        model: A generative one, or one of stage 1.
        prompt: Beginning of the captions; None = the prompt of training.

    Raises:
        ConfigError: if it was trained to answer and no prompt is given, or came without prediction head.
    """

    def __init__(self, model: Blip2, prompt: str | None = None) -> None:
        model.check_describes()
        self._model, self._processor = model, model.processor
        self._start = caption_prompt(model.processor.prompt if prompt is None else prompt)

    @torch.inference_mode()
    def __call__(
        self, images: Sequence[Image.Image], seeds: Sequence[int], count: int, options: GenerationOptions
    ) -> list[list[str]]:
        """N captions of each of B images."""
        numbers = draws(seeds, count, options.max_new_tokens)
        with suitable_autocast(self._model.network):
            if self._model.network.matches_texts:
                network = self._model.image_text("caption")
                starts = [self._start] * len(images)
                texts = generate_captions(network, self._processor, images, starts, options, len(images), numbers)
            else:
                texts = self._by_language_model(self._model.generative("caption"), images, options, numbers)
        return by_image(texts, count)

    def _by_language_model(
        self, network: GenerativeModel, images: Sequence[Image.Image], options: GenerationOptions, numbers: Tensor
    ) -> list[str]:
        tokenizer, prompts = self._processor.language_tokenizer, [Prompt(self._start, "")] * len(images)
        assert tokenizer is not None
        inputs = read_batches(network, self._processor, images, prompts, options.max_new_tokens, len(images))
        numbers = numbers.to(network.query_tokens.device)
        generated = network.generate(**next(inputs), options=options, uniforms=numbers, **tokenizer.generation_tokens)
        return tokenizer.decode(generated)

    def weights(self) -> dict[str, Tensor]:
        """The weights of the model."""
        return dict(self._model.network.state_dict())


def draws(seeds: Sequence[int], count: int, length: int) -> Tensor:
    """Uniform random numbers `(B, N, T)` in [0, 1) for images with these seeds, the same on every device."""
    return torch.stack([torch.rand(count, length, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def by_image(texts: Sequence[str], count: int) -> list[list[str]]:
    """The texts of each image, from those of all.

    Example:
        >>> by_image(["a cat", "cats", "a dog", "dogs"], 2)
        [['a cat', 'cats'], ['a dog', 'dogs']]
    """
    return [list(texts[first : first + count]) for first in range(0, len(texts), count)]
