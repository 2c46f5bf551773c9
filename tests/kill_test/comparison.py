"""Compares a run that was killed with one that was not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import keystr, tree_flatten_with_path

from blip2_train.checkpoints.files import read_weights
from blip2_train.checkpoints.training_checkpoints import CHECKPOINTS, read_training_state
from blip2_train.evaluation.run_metrics import METRICS_FILE, read_metrics
from blip2_train.training.earlier_runs import EXPORT
from blip2_train.training.sample_log import SAMPLES, read_samples

Samples = Mapping[int, Sequence[str]]


def differences(one: Path, other: Path) -> dict[str, list[str]]:
    """What is not the same bit for bit in two run folders, by what was compared; empty lists where all is."""
    return {
        "sample ids, in order": _unequal(_samples(one), _samples(other), "step"),
        "losses and scores": _unequal(_rows(one), _rows(other), "row"),
        "exported weights": _unequal_tensors(_export(one), _export(other)),
        "last checkpoint (weights, optimiser)": _unequal_tensors(_state(one), _state(other)),
    }


def sample_differences(one: Path, other: Path) -> dict[str, list[str]]:
    """The same for runs on different numbers of processes, of which only the samples of each step are the same."""
    first, second = ({step: sorted(ids) for step, ids in _samples(folder).items()} for folder in (one, other))
    return {"sample ids of each step": _unequal(first, second, "step")}


def epoch_differences(folder: Path, epoch: int) -> dict[str, list[str]]:
    """Epochs of a run, of so many samples, in which not every sample was trained on exactly once."""
    return {"every sample of each epoch once": lost_or_doubled(_samples(folder), epoch)}


def lost_or_doubled(samples: Samples, epoch: int) -> list[str]:
    """Epochs in which a sample is missing or repeated, of the last, unfinished one what is repeated.

    A sample id ends in `#` and the number of the caption, which may be another one in each epoch.
    """
    order = [name.rpartition("#")[0] for step in sorted(samples) for name in samples[step]]
    every, differences = set(order), []
    if len(every) != epoch:
        differences.append(f"{len(every)} samples were met, the data has {epoch}")
    for number, first in enumerate(range(0, len(order), epoch)):
        part = Counter(order[first : first + epoch])
        doubled = sorted(name for name, count in part.items() if count > 1)
        lost = sorted(every - part.keys()) if first + epoch <= len(order) else []
        if doubled or lost:
            differences.append(f"epoch {number}: {len(doubled)} doubled {doubled[:3]}, {len(lost)} lost {lost[:3]}")
    return differences


def _unequal(one: Mapping[Any, Any], other: Mapping[Any, Any], what: str) -> list[str]:
    keys = [*one, *(key for key in other if key not in one)]
    return [f"{what} {key}" for key in keys if key not in one or key not in other or one[key] != other[key]]


def _unequal_tensors(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    def same(name: str) -> bool:
        a, b = one.get(name), other.get(name)
        if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
            return torch.equal(a, b)
        return name in one and name in other and bool(a == b)

    return [name for name in sorted({*one, *other}) if not same(name)]


def _samples(folder: Path) -> dict[int, list[str]]:
    return read_samples(folder / SAMPLES)


def _rows(folder: Path) -> dict[str, dict[str, str]]:
    """Rows of `metrics.csv` by step and number within the step, as text: equal text is equal bits."""
    rows: dict[str, dict[str, str]] = {}
    for row in read_metrics(folder / METRICS_FILE):
        filled = {name: value for name, value in row.items() if value}
        kind = "training" if any(name.startswith("train/") for name in filled) else "validation"
        name = f"{row['step']} {kind}"
        rows[name if name not in rows else f"{name}, again"] = filled
    return rows


def _export(folder: Path) -> dict[str, torch.Tensor]:
    return dict(read_weights(folder / EXPORT))


def _state(folder: Path) -> dict[str, Any]:
    """Weights and optimiser of the last checkpoint, by path within it."""
    newest = max((folder / CHECKPOINTS).glob("step_*.ckpt"))
    state = read_training_state(newest)
    leaves, _ = tree_flatten_with_path({part: state[part] for part in ("state_dict", "optimizer_states")})
    return {"global_step": state["global_step"], **{keystr(path): leaf for path, leaf in leaves}}
