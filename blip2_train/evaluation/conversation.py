"""The last conversation about an image, as far as a model has read it: a further message costs only its own tokens.

That no weight has changed since is known from torch's counts of changes in place, which are private.
Tried with torch 2.14.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from blip2_train.data.batches.processor import Processor
from blip2_train.evaluation.generation import Prompt
from blip2_train.evaluation.same_images import same_image
from blip2_train.models.configs import GenerationOptions
from blip2_train.models.generative import GenerativeModel
from blip2_train.models.language_model import own_precision
from blip2_train.models.prompt_cache import DecoderOnlyPrompts
from blip2_train.models.text_generation import SpecialTokens, continued, stream_continued
from blip2_train.types import TextTokens


class Conversation:
    """An image that was encoded, and the longest beginning of the last prompt that was read about it.

    The image is always kept. What a language model has read is kept if it has no encoder (an encoder reads a prompt as
    a whole) and the Q-Former does not read the question.

    Args:
        network: The model, on its device.
        processor: With the tokenizer of its language model.
        pixel_values: `(3, H, W)`.
    """

    def __init__(self, network: GenerativeModel, processor: Processor, pixel_values: Tensor) -> None:
        self._network, self._processor, self.pixel_values = network, processor, pixel_values.clone()
        self.address = ""
        """Web address that the image came from; empty if it came otherwise."""
        self._state = _state(network)
        self._images = network.see(pixel_values[None].to(network.query_tokens.device))
        self._read: tuple[list[int], DecoderOnlyPrompts] | None = None

    def is_about(self, network: GenerativeModel, pixel_values: Tensor) -> bool:
        """Whether what was read is what this model, with its present weights, reads of this image."""
        known = self._network is network and self._state == _state(network)
        return known and same_image(self.pixel_values, pixel_values)

    def generate(self, prompt: Prompt, options: GenerationOptions) -> str:
        """Text behind a prompt about the image, the same as if all were read again."""
        network = self._network
        if (read := self._prompt_read(prompt)) is None:
            return self.decode(network.generate(options=options, **self._inputs(prompt)))
        with own_precision(network.language_model, network.query_tokens.device):
            return self.decode(continued(read, options, self._special()))

    def generate_stepwise(self, prompt: Prompt, options: GenerationOptions) -> Iterator[Tensor]:
        """The ids of that text so far, after each new token; as `GenerativeModel.generate_stepwise`."""
        if (read := self._prompt_read(prompt)) is None:
            return self._network.generate_stepwise(options=options, **self._inputs(prompt))
        return stream_continued(read, options, self._special())

    def decode(self, ids: Tensor) -> str:
        """The text of ids `(1, T)`."""
        assert self._processor.language_tokenizer is not None
        return self._processor.language_tokenizer.decode(ids)[0]

    def _special(self) -> SpecialTokens:
        assert self._processor.language_tokenizer is not None
        given = self._processor.language_tokenizer.generation_tokens
        return SpecialTokens.of(given["eos_token_id"], given["pad_token_id"])

    def _prompt_read(self, prompt: Prompt) -> DecoderOnlyPrompts | None:
        """The prompt as read, and kept for the next one; None if it has to be read anew each time."""
        network, tokenizer = self._network, self._processor.language_tokenizer
        assert tokenizer is not None
        if network.is_encoder_decoder or network.question_to_qformer or not network.reads_prompts_once:
            return None
        self._processor.prompts([prompt.text])  # refuses what is not Unicode
        ids = tokenizer.prompt_ids(prompt.text)
        if (read := self._behind_what_was_read(ids)) is not None:
            self._read = ids, read
        return read

    def _behind_what_was_read(self, ids: list[int]) -> DecoderOnlyPrompts | None:
        """The prompt, read from where it departs from the one before."""
        network, device = self._network, self._network.query_tokens.device
        if self._read is not None:
            before, read = self._read
            if ids == before:
                return read
            differ = (n for n, (old, new) in enumerate(zip(before, ids, strict=False)) if old != new)
            same = min(next(differ, len(before)), len(before), len(ids) - 1)
            tokens = torch.tensor([ids[same:]], device=device)
            if (longer := network.extended(read, same, tokens)) is not None:
                return longer
        tokens = torch.tensor([ids], dtype=torch.int64, device=device)
        mask = torch.ones_like(tokens, dtype=torch.bool)
        whole = network.read_prompts(network.soft_prompt(self._images), tokens, mask)
        return whole if isinstance(whole, DecoderOnlyPrompts) else None

    def _inputs(self, prompt: Prompt) -> dict[str, Any]:
        """Arguments of `GenerativeModel.generate`."""
        network, tokenizer = self._network, self._processor.language_tokenizer
        assert tokenizer is not None
        device = network.query_tokens.device
        ids, mask = (part.to(device) for part in self._processor.prompts([prompt.text]))
        question = None
        if network.question_to_qformer and prompt.question:
            question = TextTokens(*(part.to(device) for part in self._processor.questions([prompt.question])))
        read = {"images": self._images, "input_ids": ids, "attention_mask": mask, "question": question}
        return read | tokenizer.generation_tokens


def _state(network: GenerativeModel) -> tuple[object, ...]:
    """Changes when a weight does: by a step of training, by loading, or by a move to another device or precision.

    What is written through `weight.data` is not noticed.
    """
    weights = list(network.parameters())
    changes = tuple((id(weight), None if weight.is_inference() else weight._version) for weight in weights)
    return changes, tuple({(weight.device, weight.dtype): None for weight in weights})
