"""Fingerprints of the data: what must be equal for a resumed run to continue in the same order of samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blip2_train.data.order import stable_seed
from blip2_train.errors import CheckpointMismatch

Fingerprint = dict[str, str | int | float]


CONTENTS = "content of shards: "
"""Prefix of entries that are compared only if both sides have them: not every source has them, and checkpoints of
earlier versions have none."""


def tokenizer_fingerprint(tokenizer: Any) -> Fingerprint:
    """One entry for the vocabulary of a transformers tokenizer."""
    vocabulary = stable_seed(*sorted(tokenizer.get_vocab().items()))
    return {"tokenizer": f"{len(tokenizer)} tokens, hash {vocabulary:x}"}


def check_fingerprint(before: Mapping[str, str | int | float], now: Mapping[str, str | int | float]) -> None:
    """Refuse to continue in another order.

    Raises:
        CheckpointMismatch: naming the first entry that changed, its old and its new value.
    """
    compared = [key for key in {**before, **now} if not key.startswith(CONTENTS) or (key in before and key in now)]
    changed = [key for key in compared if before.get(key) != now.get(key)]
    if changed:
        key = changed[0]
        more = f" (and {len(changed) - 1} more entries changed)" if len(changed) > 1 else ""
        raise CheckpointMismatch(
            f"cannot resume with other data: {key} was {before.get(key)}, is {now.get(key)}{more}. "
            "Restore it, or start a new run from the weights with init_from"
        )
