"""What the model will read and what it is to say, decoded from one batch."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from blip2_train.cli.check_report import sample_lines
from blip2_train.cli.doctor.findings import OK, PROBLEM, SKIPPED, WARNING, Finding, attempt
from blip2_train.data.language_tokenizer import LanguageTokenizer
from blip2_train.training.data_module import ImageTextDataModule
from blip2_train.types import Batch, Collator, GenerationBatch, ImageTextBatch

TOO_MANY_UNKNOWN = 0.2
"""Share of unknown tokens from which the tokenizer is likely to be of another language."""


def examine_labels(data: ImageTextDataModule | None) -> list[Finding]:
    """Read the first batch of the run, and show its samples."""
    if data is None:
        return [Finding(SKIPPED, "the data cannot be opened")]
    findings: list[Finding] = []
    batch = attempt(findings, lambda: next(iter(data.train_dataloader())))
    if batch is None:
        return findings
    return [
        *_doubts(batch, data.collator),
        *(Finding(OK, line) for line in sample_lines(batch, data.collator, len(batch))),
    ]


def _doubts(batch: Batch, collator: Collator) -> Iterator[Finding]:
    assert isinstance(batch, ImageTextBatch | GenerationBatch)
    for row, sample in enumerate(batch.sample_ids):
        if not torch.isfinite(batch.pixel_values[row]).all():
            yield Finding(PROBLEM, f"sample {sample}: its picture holds values that are no numbers; check data.std")
        if isinstance(batch, GenerationBatch) and not (batch.labels[row] >= 0).any():
            yield Finding(
                PROBLEM,
                f"sample {sample} has no label, nothing can be learnt of it: the prompt leaves no room for the text; "
                "raise max_text_length, or shorten collator.prompt",
            )
    share = _unknown_share(batch, collator)
    if share > TOO_MANY_UNKNOWN:
        yield Finding(
            WARNING,
            f"{100 * share:.0f} % of the tokens of the first batch are unknown to the tokenizer; check that it belongs "
            "to the language of the captions",
        )


def _unknown_share(batch: ImageTextBatch | GenerationBatch, collator: Collator) -> float:
    tokenizer = collator.tokenizer
    plain = tokenizer.tokenizer if isinstance(tokenizer, LanguageTokenizer) else tokenizer
    unknown = getattr(plain, "unk_token_id", None)
    if unknown is None or unknown in (plain.eos_token_id, plain.bos_token_id, plain.pad_token_id):
        return 0.0  # a tokenizer of bytes, whose unknown token stands for something else
    ids = batch.input_ids[batch.attention_mask]
    return float((ids == unknown).float().mean()) if len(ids) else 0.0
