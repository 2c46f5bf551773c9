"""What the data of a recipe are like: counts, samples as the model reads them, what is broken, repeated or unknown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from blip2_train.cli.check_report import (
    broken_lines,
    caption_lines,
    contents_table,
    copy_lines,
    left_out_lines,
    sample_lines,
    show,
)
from blip2_train.cli.contact_sheet import SheetPart, write_sheet
from blip2_train.cli.data_doubts import data_doubts, epoch_doubts
from blip2_train.config.compose import instantiate
from blip2_train.config.run_data import make_data
from blip2_train.config.starting_weights import find_starting_weights
from blip2_train.data.batches.unknown_tokens import TOO_MANY_UNKNOWN, UnknownTokens, unknown_tokens
from blip2_train.data.sources.config import open_source
from blip2_train.data.sources.holdout import evenly_chosen
from blip2_train.data.sources.source import CaptionSource
from blip2_train.data.stream.inspection import Inspection, copies, inspect_samples
from blip2_train.errors import ShardError
from blip2_train.system.screen import make_console
from blip2_train.training.data_module import ImageTextDataModule
from blip2_train.training.lifecycle import quiet_libraries
from blip2_train.types import Batch, Collator, GenerationBatch, ImageTextBatch

UNCUT = 512
"""Tokens at which counting ends."""
TOLERATED = 0.05
"""Share of broken samples that the data module tolerates by default."""


def look_at_data(config: DictConfig, most: int | None, shown: int, sheet: Path | None = None) -> None:
    """Print what the configured data are like.

    Args:
        config: Of a run.
        most: Samples of each source that are looked at; None = all.
        shown: Samples shown as the model reads them.
        sheet: HTML page that is written; None = none.

    Raises:
        ShardError: if a run on them would stop, or the tokenizer does not know their texts.
    """
    quiet_libraries()
    find_starting_weights(config)
    data = make_data(config, rejected_list=None, access="random")  # samples from all over, whatever a run reads
    data.prepare_data()
    data.setup()
    console = make_console()
    plan = data.plan()
    show(console, plan.lines())
    inspected = _inspect(config, data, most)
    parts = [part for _, part in inspected]
    uncut: Collator = instantiate(OmegaConf.merge(config.collator, {"max_text_length": UNCUT}))
    lengths = [_lengths(uncut, part) for part in parts]
    unknown = [unknown_tokens(uncut.tokenizer, part.texts) for part in parts]
    console.print(contents_table(parts, lengths, unknown, config.max_text_length))
    show(console, broken_lines([broken for part in parts for broken in part.broken]))
    show(console, left_out_lines([one for part in parts for one in part.left_out]))
    same = copies(parts)
    show(console, copy_lines(same))
    show(console, caption_lines(parts, lengths))
    doubts = [*epoch_doubts(plan, config.steps, config.global_batch_size), *data_doubts(parts, unknown)]
    show(console, [f"warning: {line}" for line in doubts])
    if sheet is not None:
        content = [
            SheetPart(source=source, seen=part, lengths=counts, unknown=tokens)
            for (source, part), counts, tokens in zip(inspected, lengths, unknown, strict=True)
        ]
        longest = config.max_text_length
        write_sheet(sheet, config.experiment, content, uncut.tokenizer, longest, doubts, same)
        show(console, [f"images and captions: {sheet}"])
    _refuse(parts, config.data.get("max_rejected_share", TOLERATED))
    batch = next(iter(data.train_dataloader()))
    show(console, sample_lines(batch, data.collator, shown))
    _refuse_unknown(parts, unknown)
    show(console, ["the data can be trained on"])


def _inspect(config: DictConfig, data: ImageTextDataModule, most: int | None) -> list[tuple[CaptionSource, Inspection]]:
    """Each use of each source, with the source."""
    parts: list[tuple[CaptionSource, Inspection]] = []

    def look(source: CaptionSource, use: str, samples: int, chosen: list[int]) -> None:
        parts.append((source, inspect_samples(source, use, samples, chosen)))

    for part in data.sources:
        look(
            part.source, "training", len(part), [part.sample_index(int(row)) for row in evenly_chosen(len(part), most)]
        )
        if len(part.held_out):
            look(part.source, "held out", len(part.held_out), _some(part.held_out, most))
    if config.data.get("validation") is not None:
        source = open_source(instantiate(config.data.validation))
        numbers = evenly_chosen(len(source), config.data.get("validation_samples"))
        look(source, "validation", len(numbers), _some(numbers, most))
    return parts


def _some(numbers: NDArray[np.int64], most: int | None) -> list[int]:
    return [int(number) for number in numbers[evenly_chosen(len(numbers), most)]]


def _lengths(uncut: Collator, part: Inspection) -> list[int]:
    """Tokens of every caption before anything is cut, with all that the collator puts around it."""
    texts, lengths = part.texts, list[int]()
    for first in range(0, len(texts), 64):
        lengths += _token_counts(uncut(texts[first : first + 64]))
    return lengths


def _token_counts(batch: Batch) -> list[int]:
    assert isinstance(batch, ImageTextBatch | GenerationBatch)
    counts = batch.attention_mask.sum(dim=1)
    if isinstance(batch, GenerationBatch):  # of an encoder-decoder, the longer of its two texts
        counts = torch.maximum(counts, (batch.labels >= 0).sum(dim=1))
    return [int(count) for count in counts]


def _refuse(parts: Sequence[Inspection], tolerated: float) -> None:
    """Refuse as a run would: too many of the samples that are trained on are broken, or all of those that are not."""
    training = [part for part in parts if part.use == "training"]
    others = [part for part in parts if part.use != "training"]
    for group, share in ((training, tolerated), *(([part], 1 - 1e-9) for part in others)):
        broken = [sample for part in group for sample in part.broken]
        looked_at = sum(part.looked_at for part in group)
        if len(broken) > share * looked_at:
            raise ShardError(
                f"{len(broken)} of {looked_at} samples of {', '.join(part.source for part in group)} ({group[0].use}) "
                f"cannot be used, the first being {broken[0].source}, {broken[0].key} ({broken[0].reason}); a run stops"
                f" at more than data.max_rejected_share {tolerated:g}: repair the data, or raise it"
            )


def _refuse_unknown(parts: Sequence[Inspection], unknown: Sequence[UnknownTokens]) -> None:
    """Refuse texts with too many unknown tokens, in any source."""
    for part, tokens in zip(parts, unknown, strict=True):
        if tokens.too_many:
            raise ShardError(
                f"{part.source} ({part.use}): {tokens}; at more than {100 * TOO_MANY_UNKNOWN:.0f} % the data cannot be "
                "trained on: choose a tokenizer, and weights, of the language of the texts"
            )
