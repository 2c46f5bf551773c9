"""Adds to the examples that a page will show where the model's queries look."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from blip2_train.evaluation.report.content import AttentionView, Example, TaskReport
from blip2_train.evaluation.report.image_data import attention_views
from blip2_train.evaluation.report.selection import choose_examples
from blip2_train.models.blip2 import Blip2Model
from blip2_train.models.query_attention import query_attention


def with_attention(
    task: TaskReport,
    model: Blip2Model,
    pixel_values: Callable[[Example], Tensor],
    *,
    texts: Callable[[Sequence[Example]], tuple[Tensor, Tensor]] | None = None,
    examples_per_task: int = 60,
    layer: int = -1,
    batch_size: int = 16,
) -> TaskReport:
    """The same task, its shown examples with views of the attention to their images.

    Args:
        task: With its examples and their scores.
        model: In eval mode, on the device where it runs.
        pixel_values: From an example to its image `(3, H, W)`, normalised.
        texts: From B examples to ids and mask `(B, T)` of what the Q-Former reads beside its queries, for models that
            read questions; None = nothing.
        examples_per_task: As for `write_report`, so that the same examples are chosen.
        layer: Index of the cross-attention; -1 = last.
        batch_size: Images at once.
    """
    shown = [choice.example for choice in choose_examples(task, examples_per_task)]
    device, views = model.query_tokens.device, dict[int, tuple[AttentionView, ...]]()
    for start in range(0, len(shown), batch_size):
        some = shown[start : start + batch_size]
        images = torch.stack([pixel_values(example) for example in some]).to(device)
        ids, mask = (None, None) if texts is None else (part.to(device) for part in texts(some))
        maps = query_attention(model, images, layer=layer, input_ids=ids, attention_mask=mask)
        views |= {id(example): attention_views(part) for example, part in zip(some, maps, strict=True)}
    return replace(task, examples=[replace(example, attention=views.get(id(example), ())) for example in task.examples])
