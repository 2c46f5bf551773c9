"""Several sampled captions of each picture, each picture's by a seed of its own.

Shape letters: B pictures, N captions of each, T new tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from blip2_train.data.processor import Picture
from blip2_train.errors import ConfigError
from blip2_train.evaluation.inference import Blip2
from blip2_train.evaluation.precision import suitable_autocast
from blip2_train.evaluation.prompts import caption_start
from blip2_train.evaluation.writing import Prompt, read_batches
from blip2_train.models.configs import GenerationOptions
from blip2_train.models.generative import GenerativeModel


@torch.inference_mode()
def sample_captions(
    model: Blip2,
    pictures: Sequence[Picture],
    seeds: Sequence[int],
    count: int,
    options: GenerationOptions,
    prompt: str | None = None,
) -> list[list[str]]:
    """N captions of each of B pictures, which are encoded once, in one batch.

    What a picture's captions are follows from the picture and its seed, but for rounding: not from its neighbours.

    Args:
        model: A generative one.
        pictures: B of them.
        seeds: One for each.
        count: N.
        options: With `do_sample` and one beam.
        prompt: What captions go on from; None = what the model was trained with.

    Raises:
        ConfigError: if the model writes no text, or cannot describe pictures.
    """
    start = Prompt(caption_start_of(model, prompt), "")
    network, tokenizer = model.network, model.processor.language_tokenizer
    assert isinstance(network, GenerativeModel) and tokenizer is not None
    with suitable_autocast(network):
        asked = read_batches(
            network, model.processor, pictures, [start] * len(pictures), options.max_new_tokens, len(pictures)
        )
        draws = torch.stack([_draws(seed, count, options.max_new_tokens) for seed in seeds]).to(model.device)
        said = network.generate(
            **next(asked),
            options=options,
            draws=draws,
            eos_token_id=tokenizer.end_id,
            pad_token_id=tokenizer.pad_id,
        )
    texts = tokenizer.decode(said)
    return [texts[first : first + count] for first in range(0, len(texts), count)]


def caption_start_of(model: Blip2, prompt: str | None) -> str:
    """What captions of a model start from.

    Raises:
        ConfigError: if it writes no text, or was trained to answer and no prompt is given.
    """
    if not isinstance(model.network, GenerativeModel):
        raise ConfigError(
            f"captions need a generative model (stage 2), but {model.source} is an image-text model (stage 1); give "
            "the export of such a run as captioner"
        )
    return caption_start(model.processor.prompt if prompt is None else prompt)


def _draws(seed: int, count: int, length: int) -> torch.Tensor:
    """Random numbers `(N, T)` in [0, 1), the same on every device."""
    return torch.rand(count, length, generator=torch.Generator().manual_seed(seed))
