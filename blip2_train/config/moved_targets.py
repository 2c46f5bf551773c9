"""Constructors that have moved: a configuration or a checkpoint that has an old name goes on working.

`MOVED` is the one table. Composing (`move_targets`), building (`instantiate`), checking of keys (`find_target`) and
taking checkpoints apart (`checkpoint_parts`) read it. Each old name is logged once in a process.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

log = logging.getLogger(__name__)

MOVED = {
    "blip2_train.data.answer_collate.load_answer_collator": (
        "blip2_train.data.batches.answer_collate.load_answer_collator"
    ),
    "blip2_train.data.collate.load_image_text_collator": "blip2_train.data.batches.collate.load_image_text_collator",
    "blip2_train.data.generation_collate.load_decoder_only_collator": (
        "blip2_train.data.batches.generation_collate.load_decoder_only_collator"
    ),
    "blip2_train.data.generation_collate.load_encoder_decoder_collator": (
        "blip2_train.data.batches.generation_collate.load_encoder_decoder_collator"
    ),
    "blip2_train.data.question_source.QuestionSourceConfig": (
        "blip2_train.data.sources.question_source.QuestionSourceConfig"
    ),
    "blip2_train.data.source_config.SourceConfig": "blip2_train.data.sources.config.SourceConfig",
    "blip2_train.data.storage_options.StorageOptions": "blip2_train.data.storage.options.StorageOptions",
    "blip2_train.training.lost_contact.DataParallelStrategy": "blip2_train.training.timeout.DataParallelStrategy",
}
"""Old dotted name → the name of today."""


def current_target(name: Any) -> Any:
    """The name of today of a `_target_`; any other value is returned as it is.

    Example:
        >>> current_target("blip2_train.data.source_config.SourceConfig")
        'blip2_train.data.sources.config.SourceConfig'
    """
    if not isinstance(name, str) or name not in MOVED:
        return name
    _log_once(name)
    return MOVED[name]


def move_targets(node: DictConfig | ListConfig) -> None:
    """Replace every old name of a `_target_` in a configuration, in place; interpolations are left alone."""
    for key in list(node) if isinstance(node, DictConfig) else range(len(node)):
        if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
            continue
        value = node[key]
        if key == "_target_" and current_target(value) != value:
            node[key] = current_target(value)
        elif isinstance(value, DictConfig | ListConfig):
            move_targets(value)


def has_moved_targets(node: Any) -> bool:
    """Whether a `_target_` of a plain configuration is an old name."""
    if isinstance(node, dict):
        target = node.get("_target_")
        return current_target(target) != target or any(map(has_moved_targets, node.values()))
    return isinstance(node, list) and any(map(has_moved_targets, node))


@cache
def _log_once(name: str) -> None:
    log.info("%s has moved: it is %s now; write that as _target_", name, MOVED[name])
