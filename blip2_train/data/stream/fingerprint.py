"""Fingerprints of the data: what must be equal for a resumed run to continue in the same order of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from blip2_train.data.sources.holdout import TrainingSource
from blip2_train.data.stream.order import stable_seed
from blip2_train.errors import CheckpointMismatch

Fingerprint = dict[str, str | int | float]


_CONTENTS = "content of shards: "
"""Prefix of entries that are compared only if both sides have them: not every source has them, and checkpoints of
earlier versions have none."""


@runtime_checkable
class KnowsContents(Protocol):
    """A source that has hashes of its content, which differ between files with equally many samples."""

    def contents(self) -> dict[str, str]:
        """Hashes by the name of what is hashed."""
        ...


def sources_fingerprint(sources: Sequence[TrainingSource]) -> Fingerprint:
    """One entry per source, with its samples, shards and weight; and one with the names of the sources, in order."""
    entries: Fingerprint = {"data sources": ", ".join(part.source.name for part in sources)}
    for part in sources:
        contents = f"{len(part)} samples in {part.source.files} files, hash {part.source.fingerprint()}"
        entries[f"data source {part.source.name}"] = f"{contents}, weight {part.weight:g}"
        hashes = part.source.contents() if isinstance(part.source, KnowsContents) else {}
        entries |= {f"{_CONTENTS}{what} in source {part.source.name}": value for what, value in hashes.items()}
    return entries


def tokenizer_fingerprint(tokenizer: Any) -> Fingerprint:
    """One entry for the vocabulary of a transformers tokenizer."""
    vocabulary = stable_seed(*sorted(tokenizer.get_vocab().items()))
    return {"tokenizer": f"{len(tokenizer)} tokens, hash {vocabulary:x}"}


def check_fingerprint(before: Mapping[str, str | int | float], now: Mapping[str, str | int | float]) -> None:
    """Refuse to continue in another order.

    Raises:
        CheckpointMismatch: naming the first entry that changed, its old and its new value.
    """
    compared = [key for key in {**before, **now} if not key.startswith(_CONTENTS) or (key in before and key in now)]
    changed = [key for key in compared if before.get(key) != now.get(key)]
    if changed:
        key = changed[0]
        more = f" (and {len(changed) - 1} more entries changed)" if len(changed) > 1 else ""
        raise CheckpointMismatch(
            f"cannot resume with other data: {key} was {before.get(key)}, is {now.get(key)}{more}. "
            "Restore it, or start a new run from the weights with init_from"
        )
