"""Loading weights by a rule: whatever is missing or unused is expected by it, or an error that names it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from blip2_train.errors import CheckpointMismatch

_NUMBERED = re.compile(r"(.+?)\.(\d+)\.")
"""A stack of layers, and the index of one of them."""
_PARTS = 4
"""Parts of a model that a line names."""


@dataclass(frozen=True, kw_only=True)
class LoadRule:
    """What may be missing in a file of weights, and what may be unused.

    Patterns are shell-style (`qformer.encoder.layer.*.crossattention.*`).
    """

    what: str
    """Name of the file and its use, for messages: `"BERT weights from /data/bert"`."""
    may_miss: tuple[str, ...] = ()
    """Parameters of the module that keep their fresh values. A pattern that matches no parameter is an error."""
    may_ignore: tuple[str, ...] = ()
    """Keys of the file that are not used."""
    only: tuple[str, ...] = ("*",)
    """Parameters of the module that the file is for; the others stay as they are."""


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """The result of loading, by parameter name."""

    what: str
    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    ignored: tuple[str, ...]
    notes: tuple[str, ...] = ()
    """Remarks for the report."""

    def line(self) -> str:
        """The report in one line, with the parts of the model that are not loaded, without names of tensors."""
        parts = list(dict.fromkeys(name.partition(".")[0] for name in self.fresh))
        more = f" and {len(parts) - _PARTS} more" if len(parts) > _PARTS else ""
        counts = [f"{len(self.fresh)} fresh ({', '.join(parts[:_PARTS])}{more})"] if parts else []
        counts += [f"{len(self.ignored)} more in the file are not needed"] if self.ignored else []
        return "; ".join((", ".join((f"{self.what}: loaded {len(self.loaded)} tensors", *counts)), *self.notes))

    def lines(self) -> list[str]:
        """The report in three lines, and one for each note."""
        return [
            f"{self.what}: loaded {len(self.loaded)} tensors",
            f"  fresh:   {_summary(self.fresh)}",
            f"  ignored: {_summary(self.ignored)}",
            *(f"  note:    {note}" for note in self.notes),
        ]


def load_by_rule(module: nn.Module, state: Mapping[str, Tensor], rule: LoadRule) -> LoadReport:
    """Copy `state` into `module` and report what was loaded.

    Args:
        module: The module to load into; dtypes follow it.
        state: Weights under the module's own parameter names.
        rule: What may be missing and what may be ignored.

    Raises:
        CheckpointMismatch: for a missing, unused or misshapen tensor that the rule does not expect, or a pattern of
            `may_miss` that matches nothing.
    """
    targets = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    persistent = set(module.state_dict().keys())
    targets = {name: tensor for name, tensor in targets.items() if name in persistent and _any(name, rule.only)}
    for pattern in rule.may_miss:
        if not any(fnmatchcase(name, pattern) for name in targets):
            raise CheckpointMismatch(
                f"{rule.what}: the rule lets {pattern!r} be missing, but the model has no such parameter"
            )
    missing = [name for name in targets if name not in state]
    unused = [key for key in state if key not in targets]
    lacking = [name for name in missing if not _any(name, rule.may_miss)]
    unexpected = [key for key in unused if not _any(key, rule.may_ignore)]
    if lacking or unexpected:
        raise CheckpointMismatch(_mismatch(rule.what, lacking, unexpected, targets, state))
    loaded = [name for name in targets if name in state]
    for name in loaded:
        if targets[name].shape != state[name].shape:
            raise CheckpointMismatch(
                f"{rule.what}: {name} has shape {tuple(state[name].shape)}, the model needs "
                f"{tuple(targets[name].shape)}; give the model the sizes of the file"
            )
    with torch.no_grad():
        for name in loaded:
            targets[name].copy_(state[name])
    return LoadReport(what=rule.what, loaded=tuple(loaded), fresh=tuple(missing), ignored=tuple(unused))


def _any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _mismatch(
    what: str, lacking: list[str], unexpected: list[str], targets: Iterable[str], state: Iterable[str]
) -> str:
    sides = (("lacks", lacking), ("holds unexpected", unexpected))
    parts = [f"{verb} {_summary(tuple(names))}" for verb, names in sides if names]
    return f"{what} {' and '.join(parts)}; {why_names_differ(lacking, unexpected, targets, state)}"


def why_names_differ(
    lacking: Sequence[str], unexpected: Sequence[str], targets: Iterable[str], state: Iterable[str]
) -> str:
    """Why a file and a model have different names, as far as the names show.

    Args:
        lacking: Names of the model that the file should have.
        unexpected: Names of the file that the model should have.
        targets: All names of the model.
        state: All names of the file.
    """
    model, file = set(targets), set(state)
    if not model & file:
        first = f" (its first is {min(file)})" if file else ""
        return f"none of its {len(file)} tensors is one of the model's{first}: the file belongs to another model"
    if deeper := _depths(model, file, [*lacking, *unexpected]):
        return deeper
    if not unexpected:
        return "the file is not complete, or of a model without these parts"
    if not lacking:
        return "the model has no such parts: the file is of a larger one, or of another kind"
    return "the file is of a model with other parts"


def _depths(model: set[str], file: set[str], problems: Iterable[str]) -> str:
    """Which stack of layers is deeper on one side, if that is all there is; else empty."""
    matches = [_NUMBERED.match(name) for name in problems]
    counts = {m[1]: (_depth(m[1], file), _depth(m[1], model)) for m in matches if m}
    if None in matches or any(theirs == ours or 0 in (theirs, ours) for theirs, ours in counts.values()):
        return ""
    stack, (theirs, ours) = next(iter(counts.items()))
    return f"the file has {theirs} of {stack}, the model {ours}: give the model the file's number of layers"


def _depth(stack: str, names: Iterable[str]) -> int:
    return max((int(m[2]) + 1 for name in names if (m := _NUMBERED.match(name)) and m[1] == stack), default=0)


def _summary(names: tuple[str, ...], most: int = 4) -> str:
    if not names:
        return "nothing"
    stems = sorted({name if name.count(".") < 2 else ".".join(name.split(".")[:2]) + ".*" for name in names})
    shown = ", ".join(stems[:most]) + (f", … ({len(stems)} groups)" if len(stems) > most else "")
    return f"{len(names)} tensors ({shown})"
