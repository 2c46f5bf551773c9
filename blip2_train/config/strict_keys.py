"""Refuses keys that nothing reads, and values that do not fit, naming the key in full."""

from __future__ import annotations

import dataclasses
import inspect
import json
import pkgutil
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from blip2_train.config.moved_targets import current_target
from blip2_train.config.run_config import Part
from blip2_train.config.source_signatures import Arguments, DescribedClass, DescribedFunction, described
from blip2_train.config.value_types import builds_misfit, misfit, nearest
from blip2_train.errors import ConfigError, problems_of, refuse

_BUILDING_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_"}

ELSEWHERE = {
    "learning_rate": "optim.lr",
    "adam_beta1": "optim.betas",
    "adam_beta2": "optim.betas",
    "adam_epsilon": "optim.eps",
    "max_grad_norm": "optim.clip_norm",
    "gradient_clip_val": "optim.clip_norm",
    "max_steps": "steps",
    "max_epochs": "epochs",
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "global_batch_size",
    "train_batch_size": "global_batch_size",
    "gradient_accumulation_steps": "accumulate",
    "accumulate_grad_batches": "accumulate",
    "eval_steps": "validate_every",
    "val_check_interval": "validate_every",
    "save_steps": "checkpoint_every",
    "logging_steps": "log_every",
    "log_every_n_steps": "log_every",
    "output_dir": "paths.output_dir",
    "resume_from_checkpoint": "resume_from",
    "metric_for_best_model": "monitor",
    "dataloader_num_workers": "data.num_workers",
    "init_lr": "optim.lr",
    "max_epoch": "epochs",
    "batch_size_train": "global_batch_size",
    "accum_grad_iters": "accumulate",
}
"""Names of transformers' `TrainingArguments`, of Lightning's `Trainer` and of the original code, and ours."""
_BESIDE = {"image_column": "picture_column"}
"""What `predict.py` calls `--image-column` is another key beside the wrong one in a configuration."""


@dataclass
class Findings:
    """What a walk over the names has met."""

    unknown: list[str] = field(default_factory=list)
    """Full paths of keys that nothing reads."""
    absent: list[str] = field(default_factory=list)
    """Full paths of keys that must have a value and have none, or `???`."""
    known: set[str] = field(default_factory=set)
    """Full paths of all keys that could be set."""

    def set_aside(self, ever_read: set[str], read: set[str]) -> list[str]:
        """Take out the keys that are no arguments but what other values are made of (`${data.source}`); return them.

        Args:
            ever_read: What values are made of before keys are overridden.
            read: The same in the end; what is no longer read need not have a value.
        """
        variables = [path for path in self.unknown if path in ever_read | read]
        self.unknown = [path for path in self.unknown if path not in variables]
        self.absent = [path for path in self.absent if path in read or path not in variables]
        self.known.update(variables)
        return variables


def find_target(path: str, name: Any) -> Callable[..., Any]:
    """The class or function that `_target_` names.

    Raises:
        ConfigError: if there is none.
    """
    try:
        target = pkgutil.resolve_name(current_target(name))
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigError(f"{path}._target_ is {shown(name)}, which cannot be imported ({error})") from error
    if not callable(target):
        raise ConfigError(f"{path}._target_ is {shown(name)}, which is neither a class nor a function")
    return target


def described_target(path: str, name: Any) -> Callable[..., Any]:
    """As `find_target`, but what its source describes is not imported, and something that describes it stands for it.

    Raises:
        ConfigError: if there is none.
    """
    target = current_target(name)
    stand_in = described(target) if isinstance(target, str) else None
    return find_target(path, name) if stand_in is None else stand_in


@cache
def arguments_of(target: Callable[..., Any]) -> Arguments:
    """Names, types and need of a callable's arguments."""
    if isinstance(target, DescribedFunction) or (isinstance(target, type) and issubclass(target, DescribedClass)):
        return target.arguments
    function = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
    hints = _hints(inspect.unwrap(function))
    parameters = list(inspect.signature(target).parameters.values())
    plain = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return Arguments(
        annotations={p.name: hints.get(p.name, Any) for p in plain},
        required=frozenset(p.name for p in plain if p.default is p.empty),
        takes_any=any(p.kind is p.VAR_KEYWORD for p in parameters),
    )


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Types of a function's arguments; empty if they cannot be told.

    A name of this package's that is imported for type checkers only stands for a class.
    """
    classes: dict[str, Any] = {}
    while True:
        try:
            return typing.get_type_hints(function, localns=classes)
        except NameError as error:
            name = error.name
            if name is None or name in classes or not function.__module__.startswith("blip2_train."):
                return {}
            classes[name] = type(name, (), {})
        except (TypeError, AttributeError):
            return {}


def walk_names(path: str, node: Any, annotation: Any, findings: Findings) -> None:
    """Collect unknown and absent keys of `node` and of everything below it; values are not looked at."""
    if node == "???":
        findings.absent.append(path)
    if isinstance(node, list):
        for number, item in enumerate(node):
            walk_names(f"{path}[{number}]", item, Any, findings)
    if not isinstance(node, dict):
        return
    takes = _arguments_at(path, node, annotation)
    if takes is None:
        for key, value in node.items():
            findings.known.add(_join(path, key))
            walk_names(_join(path, key), value, _of_values(annotation), findings)
        return
    findings.known.update(_join(path, name) for name in takes.annotations)
    for key, value in node.items():
        if key in takes.annotations:
            walk_names(_join(path, key), value, takes.annotations[key], findings)
        elif not ("_target_" in node and key in _BUILDING_KEYS) and not (
            takes.takes_any and nearest(key, takes.annotations, 0.8) is None
        ):
            findings.unknown.append(_join(path, key))
            walk_names(_join(path, key), value, Any, findings)
    if not node.get("_partial_"):
        findings.absent += [_join(path, name) for name in sorted(takes.required - node.keys())]


@dataclass
class ValueProblems:
    """What is wrong with the values of a configuration, each fault reported once."""

    copies: Mapping[str, str] = field(default_factory=dict)
    """Full path of each value that only repeats another's, and that other's."""
    bad: set[str] = field(default_factory=set)
    """Full paths of values that are known to be wrong or missing; what follows from them is not reported."""
    texts: list[str] = field(default_factory=list)

    def add(self, error: ConfigError) -> None:
        """Take up an error, whose text begins with the path of what is wrong."""
        for text in problems_of(error):
            self.texts.append(text)
            self.bad.add(re.match(r"[\w.\[\]]*", text).group())  # type: ignore[union-attr]

    def concerns(self, path: str) -> bool:
        """Whether a value is wrong already, or repeats or holds one that is."""
        return self.copies.get(path) in self.bad or any(
            bad == path or bad.startswith((f"{path}.", f"{path}[")) for bad in self.bad
        )


def check_values(path: str, node: Any, annotation: Any, problems: ValueProblems) -> None:
    """Check the values of `node`, resolved, and of everything below it against the arguments they go to.

    Args:
        path: Full path of the node.
        node: Plain values.
        annotation: Of the argument that the node goes to.
        problems: Takes what is wrong: the full key, its value and what was expected.
    """
    if isinstance(node, list):
        for number, item in enumerate(node):
            check_values(f"{path}[{number}]", item, Any, problems)
    if not isinstance(node, dict):
        return
    takes, values = _arguments_at(path, node, annotation), _of_values(annotation)
    expected = {
        key: takes.annotations.get(key, Any) if takes else values
        for key in node
        if not ("_target_" in node and key in _BUILDING_KEYS)
    }
    for key, value_annotation in expected.items():
        if not problems.concerns(_join(path, key)):
            _gather(problems, _check_value, _join(path, key), node[key], value_annotation)
    if path == "":
        _gather(problems, _check_ranges, path, node, annotation)
    for key, value_annotation in expected.items():
        check_values(_join(path, key), node[key], value_annotation, problems)
    if path and not node.get("_partial_"):
        wrong = {key for key in node if problems.concerns(_join(path, key))}
        wrong |= {bad.removeprefix(f"{path}.") for bad in problems.bad if bad.startswith(f"{path}.")}
        _gather(problems, _check_other_ranges, path, node, annotation, wrong)


def _check_other_ranges(path: str, node: Any, annotation: Any, wrong: set[str]) -> None:
    """Check ranges where some values are known to be wrong or missing: errors about these are dropped."""
    if not wrong:
        _check_ranges(path, node, annotation)
        return
    try:
        _check_ranges(path, node, annotation, tolerant=True)
    except ConfigError as error:
        refuse([text for text in problems_of(error) if not wrong & set(re.findall(r"\w+", text))])


def _gather(problems: ValueProblems, check: Callable[..., None], *arguments: Any) -> None:
    try:
        check(*arguments)
    except ConfigError as error:
        problems.add(error)


def shown(value: Any) -> str:
    """A value as it is written in YAML."""
    return json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else repr(value)


def unknown_key(path: str, given: str | None, known: set[str], origin: str) -> ConfigError:
    """The error for a key that nothing reads, with the most similar key that something does.

    Args:
        path: Full path of the key.
        given: What was written on the command line, if that is longer: `train.lr` where `train` is unknown.
        known: Full paths of all keys that could be set.
        origin: Where it was found, for the message.
    """
    full = given or path
    known = {key for key in known if key != full and not key.startswith(f"{path}.")}
    parent, _, name = path.rpartition(".")
    siblings = {key.rpartition(".")[2]: key for key in known if key.rpartition(".")[0] == parent}
    close = nearest(name, siblings)
    guess = siblings[close] + full.removeprefix(path) if close else None
    if guess not in known:
        last = full.rpartition(".")[2]
        guess = next((key for key in _shortest_first(known) if key == last or key.endswith(f".{last}")), None)
        if guess is None and path != full:  # `weights.itg` for `itg_weight`
            guess = next((siblings[key] for key in _shortest_first(siblings) if last in key.split("_")), None)
    if (other := ELSEWHERE.get(full) or ELSEWHERE.get(name) or f"{parent}.{_BESIDE.get(name)}") in known:
        guess = other
    guess = guess or (siblings[close] if close else nearest(full, known))
    names = ", ".join(sorted(siblings)) or "none"
    return ConfigError(
        f"unknown key {full!r}{origin}: " + (f"did you mean {guess!r}?" if guess else f"keys there: {names}")
    )


def _shortest_first(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: (len(name), name))


def _arguments_at(path: str, node: dict[str, Any], annotation: Any) -> Arguments | None:
    """What may stand in a mapping; None if anything may."""
    if "_target_" in node:
        return arguments_of(described_target(path, node["_target_"]))
    arms = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    if Part in arms:
        raise ConfigError(
            f"{path or 'the configuration'} has no _target_, so it builds nothing; choose an option of its group"
        )
    classes = [arm for arm in arms if dataclasses.is_dataclass(arm) and isinstance(arm, type)]
    return arguments_of(classes[0]) if classes else None


def _check_value(path: str, value: Any, annotation: Any) -> None:
    """Check one value, without what lies below it."""
    plain = dataclasses.is_dataclass(annotation) and isinstance(value, dict) and "_target_" not in value
    expected = None if plain else misfit(value, annotation)
    if expected is None and isinstance(value, dict) and "_target_" in value:
        expected, value = builds_misfit(described_target(path, value["_target_"]), annotation), value["_target_"]
    if expected is not None:
        raise ConfigError(f"{path} is {shown(value)}; expected {expected}")


def _check_ranges(path: str, node: dict[str, Any], annotation: Any, tolerant: bool = False) -> None:
    """Let a configuration dataclass check its own values; the top level and parts of other kinds are left alone."""
    target = described_target(path, node["_target_"]) if "_target_" in node else annotation
    if not (isinstance(target, type) and dataclasses.is_dataclass(target)):
        return
    names = [f.name for f in dataclasses.fields(target)]
    try:
        if "_target_" in node:
            _built(target, node)
        else:
            target(**(dict.fromkeys(names) | node if path == "" else node))
    except (ConfigError, ValueError, TypeError) as error:
        if tolerant and isinstance(error, TypeError):
            return
        texts = problems_of(error) if isinstance(error, ConfigError) else (str(error),)
        refuse([_in_full(path, names, text.replace("\n", " ")) for text in texts])


def _in_full(path: str, names: Sequence[str], message: str) -> str:
    """The message of a configuration dataclass about its values, with the full path of the key."""
    if path and message.split(" ")[0] in names:
        return f"{path}.{message}"
    if path and not message.startswith(f"{path.split('.')[0]}."):
        return f"{path}: {message}"
    return message


def _built(target: Callable[..., Any], node: dict[str, Any]) -> Any:
    """The object of a node; configuration dataclasses below it are built too, everything else stays as written."""
    values = {key: value for key, value in node.items() if key not in _BUILDING_KEYS}
    for key, value in values.items():
        inner = described_target(key, value["_target_"]) if isinstance(value, dict) and "_target_" in value else None
        if isinstance(inner, type) and dataclasses.is_dataclass(inner):
            values[key] = _built(inner, value)
    return target(**values)


def _of_values(annotation: Any) -> Any:
    """Annotation of the values of a mapping, also of an optional one."""
    arms = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    inner = next((typing.get_args(arm) for arm in arms if typing.get_origin(arm) in (dict, Mapping)), ())
    return inner[1] if len(inner) == 2 else Any


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)
