"""Loading weights by a written rule: whatever is missing or unused was expected, or it is an error that names it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from blip2_train.errors import CheckpointMismatch


@dataclass(frozen=True, kw_only=True)
class HandoverRule:
    """What a file of weights may leave out, and what of it may be left unused.

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
    """What a load did, by parameter name."""

    what: str
    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    ignored: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report in three lines."""
        return [
            f"{self.what}: loaded {len(self.loaded)} tensors",
            f"  fresh:   {_summary(self.fresh)}",
            f"  ignored: {_summary(self.ignored)}",
        ]


def load_by_rule(module: nn.Module, state: Mapping[str, Tensor], rule: HandoverRule) -> LoadReport:
    """Copy `state` into `module` and say what happened.

    Args:
        module: Where the weights go. Dtypes follow the module.
        state: Weights under the module's own parameter names.
        rule: What may miss and what may be ignored.

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
                f"{rule.what}: the rule says {pattern!r} may be missing, but the model has no such parameter"
            )
    missing = [name for name in targets if name not in state]
    unused = [key for key in state if key not in targets]
    _refuse(rule.what, "lacks", [n for n in missing if not _any(n, rule.may_miss)])
    _refuse(rule.what, "holds unexpected", [k for k in unused if not _any(k, rule.may_ignore)])
    loaded = [name for name in targets if name in state]
    for name in loaded:
        if targets[name].shape != state[name].shape:
            raise CheckpointMismatch(
                f"{rule.what}: {name} has shape {tuple(state[name].shape)}, the model needs "
                f"{tuple(targets[name].shape)}; check that the recipe's sizes are those of the file"
            )
    with torch.no_grad():
        for name in loaded:
            targets[name].copy_(state[name])
    return LoadReport(what=rule.what, loaded=tuple(loaded), fresh=tuple(missing), ignored=tuple(unused))


def _any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _refuse(what: str, verb: str, names: list[str]) -> None:
    if names:
        raise CheckpointMismatch(
            f"{what} {verb} {_summary(tuple(names))}; the file belongs to another model, or the recipe's sizes differ"
        )


def _summary(names: tuple[str, ...], most: int = 4) -> str:
    if not names:
        return "nothing"
    stems = sorted({name if name.count(".") < 2 else ".".join(name.split(".")[:2]) + ".*" for name in names})
    shown = ", ".join(stems[:most]) + (f", … ({len(stems)} groups)" if len(stems) > most else "")
    return f"{len(names)} tensors ({shown})"
