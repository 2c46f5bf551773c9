"""What the model will read and what it is to say, decoded from one batch."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from blip2_train.cli.check_report import sample_lines
from blip2_train.cli.doctor.findings import OK, PROBLEM, SKIPPED, Finding, attempt
from blip2_train.training.data_module import ImageTextDataModule
from blip2_train.types import Batch, GenerationBatch, ImageTextBatch


def examine_labels(data: ImageTextDataModule | None) -> list[Finding]:
    """Read the first batch of the run, and show its samples."""
    if data is None:
        return [Finding(SKIPPED, "the data cannot be opened")]
    findings: list[Finding] = []
    batch = attempt(findings, lambda: next(iter(data.train_dataloader())))
    if batch is None:
        return findings
    return [
        *_doubts(batch),
        *(Finding(OK, line) for line in sample_lines(batch, data.collator, len(batch))),
    ]


def _doubts(batch: Batch) -> Iterator[Finding]:
    assert isinstance(batch, ImageTextBatch | GenerationBatch)
    for row, sample in enumerate(batch.sample_ids):
        if not torch.isfinite(batch.pixel_values[row]).all():
            yield Finding(PROBLEM, f"sample {sample}: its image holds values that are no numbers; check data.std")
        if isinstance(batch, GenerationBatch) and not (batch.labels[row] >= 0).any():
            yield Finding(
                PROBLEM,
                f"sample {sample} has no label, nothing can be learnt of it: the prompt leaves no room for the text; "
                "raise max_text_length, or shorten collator.prompt",
            )
