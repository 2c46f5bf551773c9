"""The likeliest of given answers, for each image and prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from blip2_train.data.batches.image_inputs import ImageInput
from blip2_train.data.batches.processor import Processor
from blip2_train.data.text_cleaning import is_unicode
from blip2_train.errors import ConfigError
from blip2_train.evaluation.generation import Prompt, read_batches
from blip2_train.evaluation.same_images import by_image
from blip2_train.models.generative import GenerativeModel
from blip2_train.models.ranking import log_likelihoods

SHORTLIST = 128
"""Candidates that are read to the end, as in the released code of ALBEF and BLIP."""


@torch.inference_mode()
def rank_texts(
    network: GenerativeModel,
    processor: Processor,
    images: Sequence[ImageInput],
    prompts: Sequence[Prompt],
    candidates: Sequence[str],
    shortlist: int,
    batch_size: int,
) -> list[str]:
    """The candidate that is the likeliest after each image and its prompt; of equals the first.

    Args:
        network: The model, on its device.
        processor: With the tokenizer of its language model.
        images: Read batch by batch.
        prompts: One per image; all end alike.
        candidates: The possible answers.
        shortlist: See `log_likelihoods`.
        batch_size: Images at once.

    Raises:
        PromptTooLong: before any image is read.
        ConfigError: if there is no candidate, one is empty, or the shortlist is.
        ShardError: naming a file that is no readable image.
    """
    if not candidates or isinstance(candidates, str) or not all(text.strip() for text in candidates):
        raise ConfigError(
            "candidates must be a list of answers, none of them empty; leave them out to generate answers"
        )
    if broken := next((text for text in candidates if not is_unicode(text)), None):
        raise ConfigError(f"candidate {broken!r} is not Unicode (it holds half a character); write it again in UTF-8")
    if shortlist < 1:
        raise ConfigError(f"shortlist must be at least 1, got {shortlist}")
    if not prompts:
        return []
    assert processor.language_tokenizer is not None
    tokenizer = processor.language_tokenizer
    texts = tokenizer.continuations(prompts[0].text, [text.strip() for text in candidates])
    start = tokenizer.generation_tokens["decoder_start"]
    longest = max(map(len, texts))
    order, likeliest = by_image(images), list[str]()
    inputs = [images[index] for index in order], [prompts[index] for index in order]
    for batch in read_batches(network, processor, *inputs, longest, batch_size):
        likelihoods = log_likelihoods(network, **batch, texts=texts, shortlist=shortlist, decoder_start=start)
        likeliest += [candidates[index] for index in likelihoods.argmax(dim=1).tolist()]
    return [text for _, text in sorted(zip(order, likeliest, strict=True))]
