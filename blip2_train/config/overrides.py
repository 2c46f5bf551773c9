"""Reads `key=value` arguments, and finds options that do not exist before Hydra does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from blip2_train.config.value_types import nearest
from blip2_train.errors import ConfigError

_TORN = re.compile(r"[\w.+~/@-]+(\n=\n?|=\n(?![~+]|--))[^=\n]+")
"""A setting in two or three arguments; an empty value may stand in front of a key to delete or add, or an option."""


@dataclass(frozen=True)
class CommandOverrides:
    """The settings of a command line."""

    experiment: str | None
    """Name of the recipe."""
    choices: list[str]
    """Options of groups, as Hydra takes them."""
    values: list[Override]
    """Values of keys, and keys to delete, in order."""
    keys: frozenset[str]
    """Full paths of the keys that were set by value."""
    problems: tuple[str, ...] = ()
    """Of arguments that cannot be used, and are left out."""


def options(group: str, folders: Sequence[Path]) -> list[str]:
    """Names of the options of a group, sorted, without `_those` that others build on; empty if there is no such group.

    Args:
        group: Folder below a configuration folder, for instance `model/vision_model`.
        folders: Configuration folders.
    """
    try:
        files = [file for folder in folders for file in (folder / group).glob("[!_]*.yaml")] if group else []
    except (OSError, ValueError):  # a name that no file can have
        files = []
    return sorted({file.stem for file in files})


def read_overrides(arguments: Sequence[str], folders: Sequence[Path], group: str = "experiment") -> CommandOverrides:
    """Parse and check arguments.

    Whether a key may be set is checked by `strict_keys`, so that one that nothing reads gives the same error on the
    command line, behind `+` or `++`, and in a recipe. Of two arguments for one group or key the later counts.

    Arguments that are no `key=value`, sweep, or name an option that does not exist are problems of the result.

    Args:
        arguments: Of the command line.
        folders: Configuration folders.
        group: Whose options the command is about: a recipe, or an evaluation.
    """
    experiment: str | None = None
    keys: set[str] = set()
    choices: dict[str, str] = {}
    values: list[Override] = []
    problems: list[str] = []
    groups = [group for folder in folders for group in groups_in(folder)]

    def take(argument: str) -> None:
        nonlocal experiment
        if argument in options(group, folders):
            experiment = argument if group == "experiment" else None
            raise ConfigError(f"cannot read {argument!r}: write {group}={argument}")
        override = parse_setting(argument)
        key = override.key_or_group
        if override.is_sweep_override():
            raise ConfigError(
                f"{argument!r} stands for several runs: train.py --multirun makes one of each value (a list is written "
                f"'{key}=[a,b]')"
            )
        if key.replace("/", ".").partition(".")[0] == "hydra":
            raise ConfigError(
                f"{key!r} cannot be set: of Hydra's own settings a sweep alone has some (train.py --multirun "
                "hydra/launcher=submitit_slurm); run folders lie in paths.output_dir"
            )
        if options(key, folders):
            option = _option(override, folders)
            experiment = option if key == "experiment" else experiment
            if option is not None or override.is_delete():
                choices[key] = argument.lstrip("+")
        elif override.is_delete():
            values.append(override)
        elif options(key.replace(".", "/"), folders) and "." in key:
            raise ConfigError(f"{key!r} is a group: write {key.replace('.', '/')}={argument.split('=', 1)[1]}")
        else:
            inner = next((group for group in groups if group.endswith(f"/{key}")), None)
            if "/" in key or inner:
                raise no_such_group(key, groups if inner is None else [inner])
            keys.add(key)
            values.append(override)

    torn = False
    whole, with_blanks = _without_blanks(arguments)
    problems += with_blanks
    for argument in whole:
        try:
            take(argument)
        except ConfigError as error:
            if "=" in argument or not torn:  # of `--steps 5` the first part is reported
                problems.append(str(error))
            torn = "=" not in argument
        else:
            torn = False
    return CommandOverrides(
        experiment=experiment,
        choices=list(choices.values()),
        values=values,
        keys=frozenset(keys),
        problems=tuple(problems),
    )


def _without_blanks(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Arguments that are whole, and a problem for each setting that blanks around its = have torn apart.

    Example:
        >>> _without_blanks(["a=1", "seed", "=", "2", "steps=", "3"])[0]
        ['a=1']
        >>> _without_blanks(["init_from=", "~data.prepare"])[0]
        ['init_from=', '~data.prepare']
    """
    whole, problems, rest = list[str](), list[str](), list(arguments)
    while rest:
        length = next((n for n in (3, 2) if _TORN.fullmatch("\n".join(rest[:n])) and len(rest) >= n), 1)
        taken, rest = rest[:length], rest[length:]
        if length == 1:
            whole += taken
        else:
            problems.append(f"cannot read {' '.join(taken)!r}: write {quote(''.join(taken))}, without blanks around =")
    return whole, problems


def no_such_option(group: str, option: str, known: Sequence[str]) -> ConfigError:
    """The error for an option that does not exist."""
    close = nearest(option, known)
    guess = f"did you mean {close}? " if close else ""
    return ConfigError(f"{group} has no option {option!r}; {guess}available: {', '.join(known)}")


def no_such_group(group: str, known: Sequence[str]) -> ConfigError:
    """The error for a group that does not exist."""
    close = next((k for k in known if k.endswith(f"/{group}")), None) or nearest(group, known)
    return ConfigError(f"there is no group {group!r}" + (f"; did you mean {close!r}?" if close else ""))


def groups_in(folder: Path) -> list[str]:
    """Names of the groups of a configuration folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if any(path.glob("*.yaml")))


def parse_setting(argument: str) -> Override:
    """Read `key=value`, which may stand for several values.

    Raises:
        ConfigError: if it is none.
    """
    if argument.startswith("-"):
        raise ConfigError(f"unknown option {argument!r}; settings are given as key=value, --help shows the options")
    if argument.strip() in ("~", "+", "++"):
        raise ConfigError(f"{argument!r} names no key; settings are given as key=value")
    try:
        return OverridesParser.create().parse_override(argument)
    except (HydraException, RecursionError) as error:
        if "=" not in argument:
            raise ConfigError(f"cannot read {argument!r}: settings are given as key=value") from error
        key, value = argument.split("=", 1)
        raise ConfigError(
            f"cannot read {argument!r}: quote the value twice if it holds = {{ }} [ ] , blanks or letters that are not "
            f"ASCII: {key}='\"{value}\"'"
        ) from error


def quoted(key: str, path: Path) -> str:
    """A setting whose value is a path, whatever signs it holds."""
    escaped = str(path).replace("'", "\\'")
    return f"{key}='{escaped}'"


def _option(override: Override, folders: Sequence[Path]) -> str | None:
    """The option an override chooses, checked; None if it chooses none."""
    group = override.key_or_group
    known = options(group, folders)
    if override.is_delete():
        return None
    option = override.value()
    if option is None and group == "debug":
        return None
    if group == "evaluation":
        for name in option if isinstance(option, list) else [option]:
            if name not in known:
                raise no_such_option(group, str(name), known)
        return str(option)
    if not isinstance(option, str) or option not in known:
        raise no_such_option(group, str(option), known)
    return option
