"""What is doubtful of data that a run could train on: warnings of `check` and `doctor`, each with its numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import median_low

from blip2_train.config.epoch_steps import steps_of
from blip2_train.data.batches.unknown_tokens import UnknownTokens
from blip2_train.data.sequential.plan import SequentialPlan
from blip2_train.data.stream.inspection import Inspection
from blip2_train.data.stream.plan import DataPlan

MANY_EPOCHS = 100
"""Passes over a source from which on a run is doubted: hundreds teach its captions by heart."""
ADVISED_EPOCHS = 10
FEW_WORDS = 2
"""Words up to which a caption counts as short: the name of a thing, not what an image shows."""
MANY_SHORT = 0.5
"""Share of short captions from which on they are doubted."""
MANY_UNKNOWN = 0.05
"""Share of unknown tokens from which on texts are doubted."""
# A letter of a script that is written without blanks (Thai to Khmer, Chinese, Japanese) counts as a word of its own.
_WORD = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]|[^\W\d_](?:[^\W_]|['’-](?=\w))*"
)


def epoch_doubts(plan: DataPlan | SequentialPlan, steps: int, batch: int) -> list[str]:
    """A line for each source that a run draws from hundreds of times.

    Args:
        plan: Its sources and their shares; with sequential access their sizes are not known, and there is no warning.
        steps: Optimiser steps of the run.
        batch: Samples of a step.
    """
    if not isinstance(plan, DataPlan):
        return []
    lines = []
    for source in plan.sources:
        epochs = steps * batch * source.share / source.samples
        if epochs >= MANY_EPOCHS:
            few = steps_of(ADVISED_EPOCHS, sum(one.samples for one in plan.sources), batch)
            lines.append(
                f"{source.name}: {steps:,} steps of {batch:,} are {epochs:,.0f} epochs of its {source.samples:,} "
                f"samples, which a model then knows by heart; epochs={ADVISED_EPOCHS} would be {few:,} steps"
            )
    return lines


def caption_doubts(part: Inspection) -> list[str]:
    """A line if at least half of the captions are no more than a name; answers to questions may be short."""
    captions = [sample.caption for sample in part.texts if not hasattr(sample, "question")]
    counts = [word_count(caption) for caption in captions]
    short = [caption for caption, count in zip(captions, counts, strict=True) if count <= FEW_WORDS]
    if not captions or len(short) < MANY_SHORT * len(captions):
        return []
    return [
        f"{part.source} ({part.use}): {len(short):,} of {len(captions):,} captions have at most {FEW_WORDS} words "
        f"(median {median_low(counts)}), as {short[0]!r}; a model learns to say as little: write what the "
        "images show, or make captions with scripts/capfilt.py"
    ]


def unknown_doubts(part: Inspection, tokens: UnknownTokens) -> list[str]:
    """A line if many tokens of the texts are unknown."""
    if tokens.share < MANY_UNKNOWN:
        return []
    return [
        f"{part.source} ({part.use}): {tokens}; what is unknown teaches nothing: check language, spelling and signs of "
        "the texts, or choose a tokenizer that knows them"
    ]


def data_doubts(parts: Sequence[Inspection], unknown: Sequence[UnknownTokens]) -> list[str]:
    """What is doubtful of the texts of several parts."""
    pairs = list(zip(parts, unknown, strict=True))
    return [line for part, tokens in pairs for line in (*caption_doubts(part), *unknown_doubts(part, tokens))]


def word_count(text: str) -> int:
    """Words of a text; signs and numbers are none.

    Example:
        >>> word_count("a red bus, no. 7"), word_count("don't"), word_count("一只猫")
        (4, 1, 3)
    """
    return len(_WORD.findall(text))
