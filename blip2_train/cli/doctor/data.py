"""Whether every source of data can be opened, and its samples read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from blip2_train.cli.check_report import broken_lines
from blip2_train.cli.data_doubts import caption_doubts, epoch_doubts, unknown_doubts
from blip2_train.cli.doctor.findings import OK, PROBLEM, WARNING, Finding, attempt
from blip2_train.cli.part_sizes import size_text
from blip2_train.config.compose import instantiate
from blip2_train.config.run_data import make_data
from blip2_train.data.batches.unknown_tokens import unknown_tokens
from blip2_train.data.sources.config import open_source
from blip2_train.data.sources.holdout import evenly_chosen
from blip2_train.data.stream.inspection import inspect_samples
from blip2_train.training.data_module import ImageTextDataModule
from blip2_train.types import Collator

LOOKED_AT = 50
"""Samples of each source that are read."""
SHOWN = 2
"""Samples in the batch whose labels are shown."""
TOLERATED = 0.05
"""Share of broken samples that the data module tolerates by default."""


@dataclass(frozen=True)
class OpenedData:
    """What of a run's data could be opened."""

    module: ImageTextDataModule | None
    """After `setup`, in one process without readers, with batches of `SHOWN` samples; None = something is missing."""
    collator: Collator | None


def open_data(config: DictConfig) -> tuple[OpenedData, list[Finding]]:
    """Open tokenizer and sources one by one, so that everything that is wrong with them is found.

    A set that is made from a seed is made if it is not there, as a run would.
    """
    findings: list[Finding] = []
    collator: Collator | None = attempt(findings, lambda: instantiate(config.collator))
    unprepared: list[Finding] = []
    if config.data.get("prepare") is not None:
        attempt(unprepared, lambda: instantiate(config.data.prepare)())
    findings += unprepared
    if not unprepared:
        for node in [*config.data.sources, *_validation(config)]:
            findings += _examine_source(node, config.data.get("max_rejected_share", TOLERATED), collator)
    if any(finding.level == PROBLEM for finding in findings):
        return OpenedData(None, collator), findings
    module = attempt(findings, lambda: _module(config))
    if module is not None:
        doubts = epoch_doubts(module.plan(), config.steps, config.global_batch_size)
        findings += [Finding(WARNING, line) for line in doubts]
    return OpenedData(module, collator), findings


def _validation(config: DictConfig) -> list[Any]:
    node = config.data.get("validation")
    return [] if node is None else [node]


def _examine_source(node: Any, tolerated: float, collator: Collator | None) -> list[Finding]:
    """Open a source and read some of its samples."""
    findings: list[Finding] = []
    source = attempt(findings, lambda: open_source(instantiate(node)))
    if source is None:
        return findings
    numbers = [int(number) for number in evenly_chosen(len(source), LOOKED_AT)]
    seen = attempt(findings, lambda: inspect_samples(source, "training", len(source), numbers))
    if seen is None:
        return findings
    files = f"{source.files:,} file{'s' * (source.files != 1)}"
    unusable = f", {len(source.rejected):,} more unusable" if source.rejected else ""
    findings.append(
        Finding(OK, f"{source.name}: {len(source):,} samples in {files} ({size_text(source.size)}){unusable}")
    )
    if collator is not None and seen.texts:
        unknown = unknown_tokens(collator.tokenizer, seen.texts)
        doubts = unknown_doubts(seen, unknown)
        findings += [Finding(WARNING, line) for line in doubts] or [Finding(OK, f"{source.name}: {unknown}")]
    findings += [Finding(WARNING, line) for line in caption_doubts(seen)]
    too_many = len(seen.broken) > tolerated * seen.looked_at
    if too_many:
        findings.append(
            Finding(
                PROBLEM,
                f"{source.name}: {len(seen.broken)} of {seen.looked_at} samples looked at cannot be used, the first: "
                f"{broken_lines(seen.broken)[0].removeprefix('broken: ')}; a run stops at more than "
                f"data.max_rejected_share {tolerated:g}",
            )
        )
    elif seen.broken:
        findings += [Finding(WARNING, line) for line in broken_lines(seen.broken)]
    return findings


def _module(config: DictConfig) -> ImageTextDataModule:
    module = make_data(config, rejected_list=None, num_workers=0, global_batch_size=SHOWN, accumulate=1)
    module.setup()
    return module
