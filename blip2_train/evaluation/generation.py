"""Text from images and prompts, batch by batch, by a generative model.

Shape letters: B images of a batch.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from blip2_train.data.batches.image_inputs import ImageInput
from blip2_train.data.batches.processor import Processor
from blip2_train.errors import ConfigError
from blip2_train.evaluation.same_images import by_image, same_image
from blip2_train.models.configs import GenerationOptions
from blip2_train.models.generative import GenerativeModel
from blip2_train.models.seen_images import SeenImages, joined
from blip2_train.types import TextTokens

CAPTIONING: dict[str, Any] = {"num_beams": 5, "max_new_tokens": 30, "length_penalty": 1.0}
"""Defaults for captions (paper: 5 beams; released code: 30 tokens)."""
SHORTEST_CAPTION = {False: 4, True: 8}
"""Fewest new tokens of COCO's captions, by whether the language model has an encoder: the released yaml asks for 8, and
counted the 4 of the prompt "a photo of" where the model continues it."""
ANSWERING: dict[str, Any] = {"num_beams": 5, "max_new_tokens": 10, "length_penalty": -1.0}
"""Defaults for answers (section 4.1 of the paper): the negative penalty favours answers as short as people give."""
_ELSEWHERE = {
    "max_length": "max_new_tokens counts the new ones alone",
    "min_length": "min_new_tokens counts the new ones alone",
    "skip_special_tokens": "texts come without special tokens",
    "streamer": "caption, answer and chat take stream=True",
    "generation_config": "give its values one by one, as num_beams=5",
    "early_stopping": "a search goes on as long as a better text can be found, as early_stopping=False does",
    "use_cache": "what was read is always kept",
    "pad_token_id": "the tokens are those of the model's files",
    "eos_token_id": "the tokens are those of the model's files",
    "bos_token_id": "the tokens are those of the model's files",
    "decoder_start_token_id": "the tokens are those of the model's files",
    "interpolate_pos_encoding": "a model reads images of one size; a fine-tuning with image_size= fits it to another",
    "return_dict_in_generate": "ids or texts come alone; model.network.generate is what computes them",
    "output_scores": "ids or texts come alone; model.match gives scores of texts",
    "text": "texts are given as prompt or question",
    "padding": "texts are padded by themselves",
    "return_tensors": "texts come as strings, generate(**inputs) gives ids",
    "use_nucleus_sampling": "do_sample=True samples, with top_p and temperature",
    "num_captions": "num_return_sequences is the number of texts of each image",
    "max_len": "max_new_tokens counts the new ones",
    "min_len": "min_new_tokens counts the new ones",
    "num_ans_candidates": "answer takes candidates=[…] to choose among",
    "inference_method": "answer generates; with candidates=[…] it chooses among them",
}
"""Options of transformers and of the original code that are none here, and what is."""
_ONLY_FOR_SAMPLING, _ONLY_FOR_BEAMS = ("top_p", "temperature", "top_k"), ("length_penalty",)


class Prompt(NamedTuple):
    """The text input for an image."""

    text: str
    """Input of the language model."""
    question: str
    """Input of a Q-Former that reads questions; empty = no question."""


class PromptTooLong(ConfigError):
    """A prompt takes more tokens than the language model can read."""


def generation_options(
    defaults: Mapping[str, Any], given: Mapping[str, Any], others: Iterable[str] = ()
) -> GenerationOptions:
    """Options of generation: what is given, the rest from `defaults`; sampling has one beam by default.

    Args:
        defaults: Fields of `GenerationOptions`.
        given: Fields as a user wrote them; None = not given.
        others: Names that the caller takes as well, for the list in the message about an unknown one.

    Raises:
        ConfigError: if a name is unknown, a value impossible, or an option would have no effect.
    """
    names = [field.name for field in fields(GenerationOptions)]
    given = {name: value for name, value in given.items() if value is not None}
    for name in given:
        if name not in names:
            known = [*names, *others]
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
            raise ConfigError(f"generation option {name!r} is unknown; {_ELSEWHERE.get(name, hint)}")
    sampling = {"num_beams": 1} if given.get("do_sample") else {}
    try:
        options = GenerationOptions(**(dict(defaults) | sampling | given))
    except TypeError as error:
        raise ConfigError(f"a generation option is no number: {error}") from None
    for needed, requirement, idle in (
        (options.do_sample, "do_sample=True", _ONLY_FOR_SAMPLING),
        (options.num_beams > 1, "num_beams of 2 or more", _ONLY_FOR_BEAMS),
    ):
        for name in idle:
            if name in given and not needed:
                raise ConfigError(
                    f"{name} {given[name]} changes nothing without {requirement}; add that, or leave it out"
                )
    return options


@torch.inference_mode()
def generate_texts(
    network: GenerativeModel,
    processor: Processor,
    images: Sequence[ImageInput],
    prompts: Sequence[Prompt],
    options: GenerationOptions,
    batch_size: int,
) -> list[str]:
    """Generate text for each image after its prompt; returns new text only, `num_return_sequences` of each image.

    Args:
        network: The model, on its device.
        processor: With the tokenizer of its language model.
        images: Read batch by batch.
        prompts: One per image.
        options: Search or sampling.
        batch_size: B.

    Raises:
        PromptTooLong: before any image is read.
        ShardError: naming a file that is no readable image.
    """
    tokenizer = processor.language_tokenizer
    assert tokenizer is not None
    order, count = by_image(images), options.num_return_sequences
    texts: list[str] = []
    inputs = [images[index] for index in order], [prompts[index] for index in order]
    for batch in read_batches(network, processor, *inputs, options.max_new_tokens, batch_size):
        texts += tokenizer.decode(network.generate(**batch, options=options, **tokenizer.generation_tokens))
    each = (texts[start : start + count] for start in range(0, len(texts), count))
    return [text for _, some in sorted(zip(order, each, strict=True)) for text in some]


def stream_text(
    network: GenerativeModel, processor: Processor, image: ImageInput, prompt: Prompt, options: GenerationOptions
) -> tuple[Iterator[Tensor], Callable[[Tensor], str]]:
    """A text step by step: the ids so far, and what makes a text of them; arguments and errors as `generate_texts`.

    The image is read and encoded at once.
    """
    tokenizer = processor.language_tokenizer
    assert tokenizer is not None
    with torch.inference_mode():
        (inputs,) = read_batches(network, processor, [image], [prompt], options.max_new_tokens, 1)
    steps = network.generate_stepwise(**inputs, options=options, **tokenizer.generation_tokens)
    return steps, lambda ids: tokenizer.decode(ids)[0]


def one_text(options: GenerationOptions, user: str) -> GenerationOptions:
    """The options, where there is room for one text.

    Raises:
        ConfigError: if they ask for more.
    """
    if (count := options.num_return_sequences) > 1:
        raise ConfigError(f"num_return_sequences {count}: {user} takes one text of each image; leave it out")
    return options


def read_batches(
    network: GenerativeModel,
    processor: Processor,
    images: Sequence[ImageInput],
    prompts: Sequence[Prompt],
    new_tokens: int,
    batch_size: int,
) -> Iterator[dict[str, Any]]:
    """Inputs of a model for images and prompts, on its device, by the names of `GenerativeModel.generate`.

    Equal images that follow each other are read and encoded once.

    Args:
        network: The model.
        processor: With the tokenizer of its language model.
        images: Read batch by batch.
        prompts: One per image.
        new_tokens: Most tokens that may follow a prompt.
        batch_size: B.

    Raises:
        PromptTooLong: before any image is read.
        ShardError: naming a file that is no readable image.
    """
    for prompt in dict.fromkeys(prompt.text for prompt in prompts):
        check_prompt(network, processor, prompt, new_tokens)
    device = network.query_tokens.device
    last: SeenImages | None = None
    for rows in batches(len(images), batch_size):
        ids, mask = processor.prompts([prompt.text for prompt in prompts[rows]])
        questions = [prompt.question for prompt in prompts[rows]]
        reads = network.question_to_qformer and any(questions)
        seen = _see(network, processor, images, rows, last)
        last = seen.select(torch.tensor([len(seen) - 1], device=device))
        yield {
            "images": seen,
            "input_ids": ids.to(device),
            "attention_mask": mask.to(device),
            "question": TextTokens(*(part.to(device) for part in processor.questions(questions))) if reads else None,
        }


def _see(
    network: GenerativeModel,
    processor: Processor,
    images: Sequence[ImageInput],
    rows: slice,
    last: SeenImages | None,
) -> SeenImages:
    """The images at `rows`, each of those that follow each other encoded once; `last` is the one before them."""
    new: list[int] = []
    location: list[int] = []  # 0 = `last`
    for index in range(rows.start, rows.stop):
        if not index or not same_image(images[index - 1], images[index]):
            new.append(index)
        location.append(len(new))
    parts = [last] if last is not None and location[0] == 0 else []
    if new:
        pixels = processor.images([images[index] for index in new])
        parts.append(network.see(pixels.to(network.query_tokens.device)))
    seen = joined(parts) if len(parts) > 1 else parts[0]
    if len(seen) == len(location):
        return seen
    return seen.select(torch.tensor(location, device=network.query_tokens.device) - location[0])


def batches(count: int, batch_size: int) -> Iterator[slice]:
    """Slices that cover `count` rows.

    Raises:
        ConfigError: if `batch_size` is not positive.

    Example:
        >>> list(batches(5, 3))
        [slice(0, 3, None), slice(3, 5, None)]
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
    return (slice(start, min(start + batch_size, count)) for start in range(0, count, batch_size))


@contextmanager
def random_state(seed: int | None, device: torch.device) -> Iterator[None]:
    """Random numbers from `seed` inside, torch's own state again afterwards; None = nothing changes."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def check_prompt(network: GenerativeModel, processor: Processor, prompt: str, new_tokens: int) -> None:
    """Refuse a prompt that leaves the language model no room for so many new tokens.

    Raises:
        PromptTooLong: naming the prompt.
    """
    assert processor.language_tokenizer is not None
    tokens = len(processor.language_tokenizer.prompt_ids(prompt))
    config, queries = network.language_model.config, network.qformer_config.num_queries
    longest = getattr(config, "max_position_embeddings", None)  # T5 has no such limit
    if longest is None:
        return
    room = longest - queries - (0 if network.is_encoder_decoder else new_tokens)
    if tokens > room:
        start = prompt if len(prompt) < 40 else prompt[:37] + "…"
        raise PromptTooLong(
            f"prompt {start!r} takes {tokens} tokens, but beside {queries} queries and {new_tokens} new tokens "
            f"language model {network.language_config.name} has room for {max(0, room)} of its {longest}; shorten it"
        )
