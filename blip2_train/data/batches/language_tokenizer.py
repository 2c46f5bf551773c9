"""The tokenizer of a frozen language model, with explicit start, end and padding tokens."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor
from transformers import AutoTokenizer

from blip2_train.errors import CheckpointMismatch, ConfigError
from blip2_train.from_transformers import load_tokenizer
from blip2_train.language_files import GENERATION_CONFIG, files_of, locate_language_model, stated_tokens
from blip2_train.system.error_reasons import reason_of
from blip2_train.types import TextTokens

_SENTENCEPIECE_FILES = ("spiece.model", "tokenizer.model", "sentencepiece.bpe.model")
"""SentencePiece files, which older tokenizers of T5, Llama and others have instead of `tokenizer.json`."""
_ESCAPES = {r"\n": "\n", r"\t": "\t"}
"""Escapes that a shell passes on unchanged if they are typed in quotes, and the characters they mean."""
QUESTIONS = "questions"
"""Subfolder of the Q-Former's tokenizer in the folder of the language model's."""


class LanguageTokenizer:
    """Converts texts to token ids of a language model and back; no call changes state that a later call uses.

    Start, end and padding tokens that are not given are the model's own: those of its tokenizer, else those of the
    configuration files beside it. Without a padding token, the end token pads: masks, not ids, mark the padding.

    Args:
        name: Folder or hub id.
        padding_side: `right` in training, `left` for prompts; an object has one side.
        start_token: First token of every text, of an encoder-decoder on both sides; None = the token that the tokenizer
            itself puts in front (none for T5, `<s>` for BART).
        end_token: Last token of every text, which training teaches; None = the tokenizer's own end token. Generation
            stops at every end token that the model's files list, if this one is among them; else at this one alone.
        pad_token: Token that fills rows up; None = the model's own.
        encoder_decoder: Whether the model has an encoder, whose input ends with the end token, also a prompt.

    Raises:
        CheckpointMismatch: if there is no such tokenizer.
        ConfigError: if a token is unknown, there is no end token, or texts would start with the model's end token.
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
        source = _resolved(name)
        self.tokenizer, stated = _load(source, name), stated_tokens(source)
        own_ends = [end for end in (self.tokenizer.eos_token_id, *stated.ends) if end is not None]
        self.end_id = self._one_id("end_token", end_token, own_ends)
        listed = own_ends if end_token is None else stated.ends if self.end_id in stated.ends else ()
        self._other_ends = [end for end in dict.fromkeys(listed) if end != self.end_id]
        pads = [pad for pad in stated.pads if pad < len(self.tokenizer)]
        own_pads = [pad for pad in (self.tokenizer.pad_token_id, *pads, self.end_id) if pad is not None]
        self.pad_id = self._one_id("pad_token", pad_token, own_pads)
        self.start_ids = self._own_start()
        if start_token is not None:
            start = self._one_id("start_token", start_token, [])
            conventional = start in (self.tokenizer.bos_token_id, *self.start_ids, *stated.starts)
            if start in (self.end_id, *own_ends) and not conventional:
                raise ConfigError(
                    f"model.language.start_token {start_token!r} is the end token of {name}, and not a token with "
                    "which its tokenizer starts texts; leave start_token out (null) for the model's own start"
                )
            self.start_ids = [start]

    def __len__(self) -> int:
        return len(self.tokenizer)

    @property
    def end_ids(self) -> list[int]:
        """Ids of all end tokens at which generation stops; the one that training teaches comes first."""
        return [self.end_id, *self._other_ends]

    @property
    def generation_tokens(self) -> dict[str, Any]:
        """Token ids for `GenerativeModel.generate`: ends, padding, and the start of a decoder's text."""
        start = self.start_ids if self.encoder_decoder else []
        return {"eos_token_id": self.end_ids, "pad_token_id": self.pad_id, "decoder_start": start}

    def padding_on(self, side: Literal["left", "right"]) -> Self:
        """A copy of this object that pads on `side`."""
        twin = copy.copy(self)
        twin.padding_side = side
        return twin

    def text_ids(self, text: str) -> list[int]:
        """Ids of a text, without start and end."""
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids)

    def text_lengths(self, texts: Sequence[str]) -> list[int]:
        """Number of ids of each text, without start and end; many texts at once take a fraction of the time."""
        return [len(ids) for ids in self.tokenizer(list(texts), add_special_tokens=False, verbose=False).input_ids]

    def prompt_ids(self, text: str) -> list[int]:
        """Ids of a prompt for generation: with the start, and the end of an encoder's input."""
        return [*self.start_ids, *self.text_ids(text), *([self.end_id] if self.encoder_decoder else [])]

    def training_text(self, prompt: str, text: str, max_length: int) -> tuple[list[int], int]:
        """Ids of start, prompt, text and end in at most `max_length` tokens; only the text is cut.

        Returns:
            The ids, and the number of them that are start and prompt. The prompt is tokenised together with the text,
            because a blank may belong to the token of the word after it.

        Raises:
            ConfigError: if the prompt leaves no room for a single token of text.
        """
        ids = self.text_ids(f"{prompt} {text}" if prompt else text)
        alone = self.text_ids(prompt) if prompt else []
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
        """Ids of texts, each with the end token, as they follow a prompt that ends like this one."""
        if self.encoder_decoder:
            return [[*self.text_ids(text), self.end_id] for text in texts]  # behind `start_ids`
        whole = (self.training_text(prompt, text, sys.maxsize) for text in texts)
        return [ids[front:] for ids, front in whole]

    def finished_ids(self, text: str, max_length: int) -> list[int]:
        """Ids of start, text and end of one side of an encoder-decoder, in at most `max_length` tokens."""
        room = max(0, max_length - len(self.start_ids) - 1)
        return [*self.start_ids, *self.text_ids(text)[:room], self.end_id]

    def padded(self, rows: Sequence[Sequence[int]], fill: int | None = None) -> tuple[Tensor, Tensor]:
        """Ids `(B, longest)`, int64, padded with `fill` (None = the padding token), and mask, bool, True = real."""
        longest = max((len(row) for row in rows), default=0)
        ids = torch.full((len(rows), longest), self.pad_id if fill is None else fill, dtype=torch.int64)
        mask = torch.zeros(len(rows), longest, dtype=torch.bool)
        for index, row in enumerate(rows):
            columns = slice(longest - len(row), longest) if self.padding_side == "left" else slice(0, len(row))
            ids[index, columns] = torch.tensor(row, dtype=torch.int64)
            mask[index, columns] = True
        return ids, mask

    def decode(self, ids: Tensor) -> list[str]:
        """Texts of generated ids `(B, T)`, each up to its first end token."""
        texts, ends = [], set(self.end_ids)
        for row in ids.tolist():
            start = int(self.encoder_decoder and len(row) > 0)  # an encoder-decoder's first token is its start
            cut = next((position for position in range(start, len(row)) if row[position] in ends), len(row))
            texts.append(self.tokenizer.decode(row[start:cut], skip_special_tokens=True).strip())
        return texts

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the tokenizer's files, and a generation configuration with start, padding and end tokens."""
        self.tokenizer.save_pretrained(str(folder))
        start = {"bos_token_id": self.start_ids[0]} if self.start_ids else {}
        stated = {**start, "eos_token_id": self.end_ids, "pad_token_id": self.pad_id}
        (Path(folder) / GENERATION_CONFIG).write_text(json.dumps(stated, indent=2) + "\n", encoding="utf-8")

    def _own_start(self) -> list[int]:
        """Ids that the tokenizer puts in front of a text; those that some add behind it are replaced by `end_token`."""
        plain, whole = self.text_ids("a"), list(self.tokenizer("a").input_ids)
        starts = (i for i in range(len(whole)) if whole[i : i + len(plain)] == plain)
        return whole[: next(starts, 0)] if plain else whole

    def _one_id(self, what: str, token: str | None, own: Sequence[int]) -> int:
        """The id of a token, or the first of the model's own ids if none is given."""
        if token is None:
            if not own:
                raise ConfigError(
                    f"the tokenizer of {self.name} has no {what.replace('_', ' ')}; set model.language.{what} to one "
                    "of its tokens"
                )
            return int(own[0])
        known = self.tokenizer.get_vocab().get(token)
        if known is not None:  # also the unknown token: OPT's start, end and unknown token are one
            return int(known)
        token = _ESCAPES.get(token, token)
        ids, front = self.text_ids(token), self.text_ids("a")
        if len(ids) > 1 and (behind := self.text_ids(f"a{token}"))[: len(front)] == front:
            ids = behind[len(front) :]  # SentencePiece puts a blank in front of what begins a text
        if len(ids) != 1 or ids[0] == self.tokenizer.unk_token_id:
            raise ConfigError(
                f"model.language.{what} {token!r} is {len(ids)} tokens for the tokenizer of {self.name}, not one "
                "that it has; choose a single token of its vocabulary"
            )
        return int(ids[0])


class AnsweringTokenizer(LanguageTokenizer):
    """The tokenizer of a language model, together with that of a Q-Former that reads questions.

    Args:
        name: Folder or hub id.
        question_tokenizer: The Q-Former's.
        **options: Options of `LanguageTokenizer`.
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
        """Write the files of both tokenizers, the Q-Former's in a subfolder."""
        super().save_pretrained(folder)
        self.question_tokenizer.save_pretrained(str(Path(folder) / QUESTIONS))


def _resolved(name: str) -> str:
    folder = Path(name).expanduser()
    if not folder.exists() and (folder.is_absolute() or name.startswith((".", "~")) or len(folder.parts) > 2):
        raise CheckpointMismatch(f"there is no language model folder {name}: give a folder with its files, or a hub id")
    return locate_language_model(name)


def _load(source: str, name: str) -> Any:
    files = files_of(source)
    vocabulary = next((file for file in _SENTENCEPIECE_FILES if file in files), None)
    if vocabulary and not {"tokenizer.json", "vocab.json"} & set(files) and find_spec("sentencepiece") is None:
        raise CheckpointMismatch(
            f"the tokenizer of language model {name} is a SentencePiece file ({vocabulary}); the package that "
            "reads it is not installed: pip install sentencepiece"
        )
    try:
        tokenizer = load_tokenizer(AutoTokenizer, source)
        tokenizer("a")  # some values of its files are checked only here
        return tokenizer
    except CheckpointMismatch:
        raise
    except Exception as error:  # transformers raises the errors of its readers
        reason = reason_of(error)
        raise CheckpointMismatch(
            f"the tokenizer of language model {name} cannot be loaded ({reason}); give a folder with its files"
        ) from None
