"""Collates samples to a stage-2 batch: inputs and labels of the frozen language model.

Shape letters: B batch, S tokens read, T tokens with a label.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import ClassVar

import torch

from blip2_train.data.batches.language_tokenizer import LanguageTokenizer
from blip2_train.data.fingerprint import Fingerprint, tokenizer_fingerprint
from blip2_train.errors import ConfigError
from blip2_train.types import Batch, GenerationBatch, ImageTextSample

IGNORED = -100


class DecoderOnlyCollator:
    """Start token, prompt, text, end token; the loss is on text and end.

    Args:
        tokenizer: The language model's, padding on the right.
        max_text_length: Tokens per text with start, prompt and end.
        prompt: The text in front of every caption, without labels.
        learn_start: Without a prompt, the start token is a label too, which the last query predicts, as in the
            released code.

    Raises:
        ConfigError: if the prompt leaves no room for text.
    """

    batch_type: ClassVar[type[Batch]] = GenerationBatch

    def __init__(
        self, tokenizer: LanguageTokenizer, max_text_length: int = 32, prompt: str = "", learn_start: bool = False
    ) -> None:
        tokenizer.training_text(prompt, "", max_text_length)
        self.tokenizer, self.max_text_length, self.prompt = tokenizer, max_text_length, prompt
        self.learn_start = learn_start and not prompt

    def fingerprint(self) -> Fingerprint:
        """Values that must be equal for a run to resume."""
        kind: Fingerprint = {"prompt": self.prompt, "learn_start": self.learn_start}
        return {"max_text_length": self.max_text_length, **tokenizer_fingerprint(self.tokenizer.tokenizer), **kind}

    def text_lengths(self, samples: Sequence[ImageTextSample]) -> list[int]:
        """Tokens of each sample in a batch of its own."""
        texts = [f"{self.prompt} {sample.caption}" if self.prompt else sample.caption for sample in samples]
        around = len(self.tokenizer.start_ids) + 1
        return [min(length + around, self.max_text_length) for length in self.tokenizer.text_lengths(texts)]

    def __call__(self, samples: Sequence[ImageTextSample]) -> GenerationBatch:
        """Make a batch of B samples, padded to the longest."""
        texts = [self.tokenizer.training_text(self.prompt, s.caption, self.max_text_length) for s in samples]
        input_ids = [ids for ids, _ in texts]
        skipped = [0 if self.learn_start else front for _, front in texts]
        labels = [[IGNORED] * n + ids[n:] for ids, n in zip(input_ids, skipped, strict=True)]
        return stack_texts(self.tokenizer, samples, input_ids, labels)


class EncoderDecoderCollator:
    """A prefix for the encoder, the rest of the text for the decoder.

    With `split_prefix`, each caption is cut after 1 … half of its words, at random (the prefix of a single word is
    empty); otherwise the prefix is the prompt.

    Args:
        tokenizer: The language model's, padding on the right.
        max_text_length: Tokens of the prefix and of the rest, each with the end token (and BART's start token).
        prompt: The text in front of the prefix, for the encoder.
        split_prefix: Whether captions are cut.

    Source: BLIP-2, section 3.3 (prefix language modelling); where to cut is the authors' answer in issue 139 of LAVIS,
    counted in words as in the reproduction that is known to train.
    """

    batch_type: ClassVar[type[Batch]] = GenerationBatch

    def __init__(
        self, tokenizer: LanguageTokenizer, max_text_length: int = 32, prompt: str = "", split_prefix: bool = True
    ) -> None:
        if len(tokenizer.prompt_ids(prompt)) > max_text_length:
            raise ConfigError(
                f"the prompt {prompt!r} takes {len(tokenizer.prompt_ids(prompt))} tokens, more than max_text_length "
                f"{max_text_length}; shorten it, or raise max_text_length"
            )
        self.tokenizer, self.max_text_length, self.prompt = tokenizer, max_text_length, prompt
        self.split_prefix = split_prefix

    def fingerprint(self) -> Fingerprint:
        """Values that must be equal for a run to resume."""
        kind: Fingerprint = {"prompt": self.prompt, "split_prefix": self.split_prefix}
        return {"max_text_length": self.max_text_length, **tokenizer_fingerprint(self.tokenizer.tokenizer), **kind}

    def text_lengths(self, samples: Sequence[ImageTextSample]) -> list[int]:
        """Tokens of each caption as a whole: where it is split is not known before its image is read."""
        return self.tokenizer.text_lengths([sample.caption for sample in samples])

    def __call__(self, samples: Sequence[ImageTextSample]) -> GenerationBatch:
        """Make a batch of B samples, padded to the longest."""
        parts = [split_words(s.caption, s.uniform) if self.split_prefix else ("", s.caption) for s in samples]
        fronts = [" ".join(filter(None, (self.prompt, prefix))) for prefix, _ in parts]
        input_ids = [self.tokenizer.finished_ids(front, self.max_text_length) for front in fronts]
        labels = [self.tokenizer.finished_ids(rest, self.max_text_length) for _, rest in parts]
        return stack_texts(self.tokenizer, samples, input_ids, labels)


def split_words(text: str, uniform: float) -> tuple[str, str]:
    """A text split after 1 … half of its words; `uniform` in [0, 1) determines the position.

    Example:
        >>> split_words("a cat on a mat", 0.9), split_words("cat", 0.9)
        (('a cat', 'on a mat'), ('', 'cat'))
    """
    words = text.split()
    half = len(words) // 2
    cut = 1 + int(uniform * half) if half else 0
    return " ".join(words[:cut]), " ".join(words[cut:])


def stack_texts(
    tokenizer: LanguageTokenizer, samples: Sequence[ImageTextSample], inputs: list[list[int]], targets: list[list[int]]
) -> GenerationBatch:
    """A batch of samples with the ids of inputs and of labels (`IGNORED` = no label), padded on the right."""
    input_ids, attention_mask = tokenizer.padded(inputs)
    labels, _ = tokenizer.padded(targets, fill=IGNORED)
    return GenerationBatch(
        pixel_values=torch.stack([sample.pixel_values for sample in samples]),
        image_ids=torch.tensor([sample.image_id for sample in samples], dtype=torch.int64),
        sample_ids=tuple(sample.sample_id for sample in samples),
        rejected=tuple(chain.from_iterable(sample.rejected for sample in samples)),
        input_ids=input_ids,
        attention_mask=attention_mask,
        labels=labels,
        target_positions=(labels.flatten() != IGNORED).nonzero().flatten(),
        references=tuple(sample.references for sample in samples),
    )


def load_decoder_only_collator(
    *,
    name: str,
    max_text_length: int,
    prompt: str = "",
    learn_start: bool = False,
    start_token: str | None = None,
    end_token: str | None = None,
    pad_token: str | None = None,
) -> DecoderOnlyCollator:
    """A `DecoderOnlyCollator` for the language model `name`; tokens as `LanguageTokenizer`'s."""
    tokenizer = LanguageTokenizer(
        name,
        padding_side="right",
        encoder_decoder=False,
        start_token=start_token,
        end_token=end_token,
        pad_token=pad_token,
    )
    return DecoderOnlyCollator(tokenizer, max_text_length, prompt, learn_start)


def load_encoder_decoder_collator(
    *,
    name: str,
    max_text_length: int,
    prompt: str = "",
    split_prefix: bool = True,
    start_token: str | None = None,
    end_token: str | None = None,
    pad_token: str | None = None,
) -> EncoderDecoderCollator:
    """An `EncoderDecoderCollator` for the language model `name`; tokens as `LanguageTokenizer`'s."""
    tokenizer = LanguageTokenizer(
        name,
        padding_side="right",
        encoder_decoder=True,
        start_token=start_token,
        end_token=end_token,
        pad_token=pad_token,
    )
    return EncoderDecoderCollator(tokenizer, max_text_length, prompt, split_prefix)
