"""Adds to the examples that a page will show where each word of a matched text leads the queries to look."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate

from torch import Tensor

from blip2_train.data.batches.processor import Processor
from blip2_train.data.text_cleaning import clean_caption
from blip2_train.evaluation.report.content import Example, TaskReport, WordView
from blip2_train.evaluation.report.selection import choose_examples
from blip2_train.models.image_text import ImageTextModel
from blip2_train.models.word_maps import word_maps


def with_word_views(
    task: TaskReport,
    model: ImageTextModel,
    processor: Processor,
    pixel_values: Callable[[Example], Tensor],
    *,
    examples_per_task: int = 60,
) -> TaskReport:
    """The same task, its shown examples with a map for each word of their predictions.

    Args:
        task: With its examples and their scores.
        model: In eval mode, on the device where it runs.
        processor: That makes its texts.
        pixel_values: From an example to its image `(3, H, W)`, normalised.
        examples_per_task: As for `write_report`, so that the same examples are chosen.
    """
    device, views = model.query_tokens.device, dict[int, tuple[WordView, ...]]()
    for choice in choose_examples(task, examples_per_task):
        example = choice.example
        words, owners = token_words(processor, example.prediction)
        if not words:
            continue
        ids, mask = processor.texts([example.prediction])
        (maps,) = word_maps(model, pixel_values(example)[None].to(device), ids.to(device), mask.to(device)).cpu()
        views[id(example)] = tuple(
            WordView(word=word, heat=sum((maps[token] for token in own[1:]), maps[own[0]]) if own else None)
            for word, own in zip(words, owners, strict=True)
        )
    return replace(task, examples=[replace(example, words=views.get(id(example), ())) for example in task.examples])


def token_words(processor: Processor, text: str) -> tuple[list[str], list[list[int]]]:
    """The words of a text as it is written, and the positions of each one's tokens; none where cleaning joins words.

    A word that was cut off has no tokens.
    """
    words, cleaned = text.split(), clean_caption(text)
    parts = cleaned.split(" ")
    if len(parts) != len(words):
        return [], []
    starts = [0, *accumulate(len(part) + 1 for part in parts)][:-1]
    encoded = processor.text_tokenizer(
        cleaned, truncation=True, max_length=processor.max_text_length, return_offsets_mapping=True
    )
    owners: list[list[int]] = [[] for _ in words]
    for token, (start, end) in enumerate(encoded["offset_mapping"]):
        if end > start:
            owners[bisect.bisect_right(starts, start) - 1].append(token)
    return words, owners
