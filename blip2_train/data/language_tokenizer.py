"""The tokenizer of a frozen language model, with its start, end and padding said explicitly."""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor
from transformers import AutoTokenizer

from blip2_train.errors import CheckpointMismatch, ConfigError
from blip2_train.hub import find_hub
from blip2_train.questions import TextTokens

QUESTIONS = "questions"
"""Folder of the Q-Former's tokenizer inside that of the language model's."""


class LanguageTokenizer:
    """Texts of a language model as rows of ids, without any state that one use could leave for the next.

    Args:
        name: Folder or hub id.
        padding_side: `right` in training, `left` for prompts; two uses, two objects.
        start_token: What every text begins with; None = what the tokenizer itself puts in front (nothing for T5).
        end_token: What every text ends with; None = the tokenizer's own end token.
        pad_token: What rows are filled up with; None = the tokenizer's own. Padding is masked, so any token will do.
        encoder_decoder: Whether the model has an encoder, whose input ends with the end token, also a prompt.

    Raises:
        CheckpointMismatch: if there is no such tokenizer.
        ConfigError: if a token is unknown or missing.
    """

    def __init__(
        self,
        name: str,
        *,
        padding_side: Literal["left", "right"],
        encoder_decoder: bool,
        start_token: str | None = None,
        end_token: str | None = None,
        pad_token: str | None = None,
    ) -> None:
        self.name, self.padding_side, self.encoder_decoder = name, padding_side, encoder_decoder
        self.tokenizer = _load(name)
        self.end_id = self._one_id("end_token", end_token, self.tokenizer.eos_token_id)
        self.pad_id = self._one_id("pad_token", pad_token, self.tokenizer.pad_token_id)
        if start_token is not None:
            self.start_ids = [self._one_id("start_token", start_token, None)]
        else:
            self.start_ids = [] if encoder_decoder else self._own_start()

    def __len__(self) -> int:
        return len(self.tokenizer)

    def padding_on(self, side: Literal["left", "right"]) -> Self:
        """Another object for the same tokenizer that pads on `side`."""
        twin = copy.copy(self)
        twin.padding_side = side
        return twin

    def words(self, text: str) -> list[int]:
        """Ids of a text alone."""
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids)

    def prompt(self, text: str) -> list[int]:
        """Ids of a prompt as the model reads it before it generates."""
        return [*self.start_ids, *self.words(text), *([self.end_id] if self.encoder_decoder else [])]

    def training_text(self, prompt: str, text: str, max_length: int) -> tuple[list[int], int]:
        """Start, prompt, text and end in at most `max_length` tokens; the text is what is cut.

        Returns:
            The ids, and how many in front are start and prompt. Where the prompt ends is seen in the tokens of prompt
            and text together, because a blank may belong to the word after it.

        Raises:
            ConfigError: if the prompt leaves no room for a single token of text.
        """
        ids = self.words(f"{prompt} {text}" if prompt else text)
        alone = self.words(prompt) if prompt else []
        differ = (i for i, (a, b) in enumerate(zip(alone, ids, strict=False)) if a != b)
        shared = next(differ, min(len(alone), len(ids)))
        room = max_length - len(self.start_ids) - 1
        if room <= shared:
            raise ConfigError(
                f"the prompt {prompt!r} takes {shared} of the {max_length} tokens of max_text_length and leaves no "
                "room for text; shorten it, or raise max_text_length"
            )
        return [*self.start_ids, *ids[:room], self.end_id], len(self.start_ids) + shared

    def continuations(self, prompt: str, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts, each with the end token, as they stand behind any prompt that ends as this one does."""
        if self.encoder_decoder:
            return [[*self.words(text), self.end_id] for text in texts]
        whole = (self.training_text(prompt, text, sys.maxsize) for text in texts)
        return [ids[front:] for ids, front in whole]

    def finished(self, text: str, max_length: int) -> list[int]:
        """A text and the end token, in at most `max_length` tokens."""
        return [*self.words(text)[: max_length - 1], self.end_id]

    def padded(self, rows: Sequence[Sequence[int]], fill: int | None = None) -> tuple[Tensor, Tensor]:
        """Rows `(B, longest)`, int64, filled up with `fill` (None = the padding token), and mask, bool, True = real."""
        longest = max((len(row) for row in rows), default=0)
        ids = torch.full((len(rows), longest), self.pad_id if fill is None else fill, dtype=torch.int64)
        mask = torch.zeros(len(rows), longest, dtype=torch.bool)
        for number, row in enumerate(rows):
            place = slice(longest - len(row), longest) if self.padding_side == "left" else slice(0, len(row))
            ids[number, place] = torch.tensor(row, dtype=torch.int64)
            mask[number, place] = True
        return ids, mask

    def decode(self, ids: Tensor) -> list[str]:
        """Texts of generated ids `(B, T)`, up to the end token of each."""
        texts = []
        for row in ids.tolist():
            start = int(self.encoder_decoder and len(row) > 0)  # an encoder-decoder's first token is its start
            cut = row.index(self.end_id, start) if self.end_id in row[start:] else len(row)
            texts.append(self.tokenizer.decode(row[start:cut], skip_special_tokens=True).strip())
        return texts

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the tokenizer's files."""
        self.tokenizer.save_pretrained(str(folder))

    def _own_start(self) -> list[int]:
        """What the tokenizer puts in front of a text; what some add behind it is left to `end_token`."""
        plain, whole = self.words("a"), list(self.tokenizer("a").input_ids)
        found = (i for i in range(len(whole)) if whole[i : i + len(plain)] == plain)
        return whole[: next(found, 0)] if plain else whole

    def _one_id(self, what: str, token: str | None, own: int | None) -> int:
        if token is None:
            if own is None:
                raise ConfigError(
                    f"the tokenizer of {self.name} has no {what.replace('_', ' ')}; set model.language.{what} to one "
                    "of its tokens (padding is masked: its end token will do)"
                )
            return int(own)
        known = self.tokenizer.get_vocab().get(token)
        ids = [known] if known is not None else self.words(token)
        if len(ids) != 1 or (self.tokenizer.unk_token_id is not None and ids[0] == self.tokenizer.unk_token_id):
            raise ConfigError(
                f"model.language.{what} {token!r} is {len(ids)} tokens for the tokenizer of {self.name}, not one it "
                "knows; choose a single token of its vocabulary"
            )
        return int(ids[0])


class AnsweringTokenizer(LanguageTokenizer):
    """The tokenizer of a language model beside a Q-Former that reads questions, whose own is kept with it.

    Args:
        name: Folder or hub id.
        question_tokenizer: The Q-Former's.
        **options: Of `LanguageTokenizer`.
    """

    def __init__(self, name: str, question_tokenizer: Any, **options: Any) -> None:
        super().__init__(name, **options)
        self.question_tokenizer = question_tokenizer

    def questions(self, questions: Sequence[str], max_length: int) -> TextTokens:
        """Cleaned questions for the Q-Former, cut on the right to `max_length` tokens; `[SEP]` stays."""
        read = self.question_tokenizer(
            list(questions), padding="longest", truncation=True, max_length=max_length, return_tensors="pt"
        )
        return TextTokens(read["input_ids"], read["attention_mask"].bool())

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the files of both, the Q-Former's in a folder inside."""
        super().save_pretrained(folder)
        self.question_tokenizer.save_pretrained(str(Path(folder) / QUESTIONS))


def _load(name: str) -> Any:
    folder = Path(name).expanduser()
    if not folder.exists() and (folder.is_absolute() or name.startswith((".", "~")) or len(folder.parts) > 2):
        raise CheckpointMismatch(f"there is no language model folder {name}: give a folder with its files, or a hub id")
    try:
        find_hub(name)
        return AutoTokenizer.from_pretrained(str(folder) if folder.is_dir() else name)
    except Exception as error:  # transformers raises whatever its readers raise
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise CheckpointMismatch(
            f"the tokenizer of language model {name} cannot be loaded ({reason}); give a folder with its files"
        ) from None
