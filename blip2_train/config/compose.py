"""From command-line arguments to a complete, checked configuration."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

import blip2_train
from blip2_train.config.epoch_steps import has_epochs, put_steps
from blip2_train.config.given_settings import follows_weights, given_paths, model_of_option
from blip2_train.config.moved_targets import has_moved_targets, move_targets
from blip2_train.config.overrides import (
    CommandOverrides,
    groups_in,
    no_such_group,
    no_such_option,
    options,
    read_overrides,
)
from blip2_train.config.run_config import EvaluationConfig, RunConfig
from blip2_train.config.step_scaling import scale_step_counts
from blip2_train.config.strict_keys import Findings, ValueProblems, check_values, unknown_key, walk_names
from blip2_train.config.tower_normalisation import fill_in_normalisation
from blip2_train.config.value_types import nearest
from blip2_train.errors import Blip2TrainError, ConfigError, problems_of, refuse
from blip2_train.system.error_reasons import reason_of

_HEADER = re.compile(r"# @package +\S")
_PACKAGE = Path(blip2_train.__file__).parent
_MISSING = {
    "init_from": "recipe {experiment} continues earlier weights: pass init_from=<export folder>, "
    "init_from=last:<recipe> for the newest export of that recipe on this machine, or a Hugging Face folder or id "
    "(a run that goes on takes the same settings, and resume_from= behind them)",
    "data.source": "recipe {experiment} has no data yet: pass data.source=<file of captions; folder, glob or list of "
    "shards>",
}


def config_folder() -> Path:
    """The folder with the configuration: inside an installed package, or beside it in a checkout."""
    inside = _PACKAGE / "configs"
    return inside if inside.is_dir() else _PACKAGE.parent / "configs"


def asset(name: str) -> str:
    """Absolute path of a file or folder that ships with the package: `demo/bert`."""
    return str(_PACKAGE / "assets" / name)


def recipes(extra_folder: Path | None = None) -> list[str]:
    """Names of the recipes."""
    return options("experiment", _folders(extra_folder))


def compose(overrides: Sequence[str], extra_folder: Path | None = None) -> DictConfig:
    """The configuration of a training run: complete, without interpolations, every key read by something, read-only.

    Args:
        overrides: Settings as on the command line: `["experiment=demo_stage1", "optim.lr=1e-4"]`.
        extra_folder: A folder with more options, laid out as `configs/`, for instance with `experiment/my_recipe.yaml`.

    Raises:
        ConfigError: naming the key, its value, and what to do.
    """
    folders = _folders(extra_folder)
    command = read_overrides(overrides, folders)
    if command.experiment is None:
        known = ", ".join(options("experiment", folders))
        problem = f"choose a recipe: experiment=<name>; there are {known}"
        if (written := nearest("experiment", command.keys, likeness=0.75)) is not None:
            problem = f"unknown key {written!r}: did you mean 'experiment'?"
        reported = any("experiment" in problem for problem in command.problems)
        refuse([*command.problems, *([] if reported else [problem])])
    return _checked("train", RunConfig, command, extra_folder)


def compose_evaluation(overrides: Sequence[str], extra_folder: Path | None = None) -> DictConfig:
    """The configuration of an evaluation, checked like that of a run: `["evaluation=[nocaps]", "checkpoint=…"]`.

    Raises:
        ConfigError: naming the key, its value, and what to do.
    """
    return _checked(
        "evaluate", EvaluationConfig, read_overrides(overrides, _folders(extra_folder), "evaluation"), extra_folder
    )


def _checked(root: str, schema: type, command: CommandOverrides, extra_folder: Path | None) -> DictConfig:
    folders = _folders(extra_folder)
    OmegaConf.register_new_resolver("asset", asset, replace=True)
    try:
        config = _compose(root, command.choices, folders, extra_folder)
    except ConfigError as error:
        refuse([*command.problems, *([] if command.problems else problems_of(error))])
        raise
    problems = ValueProblems(texts=list(command.problems))
    recipe = config.copy()
    option = model_of_option(config) if schema is RunConfig else {}
    read_by_others = _read_by_others(config)
    derived = _derived(config, command.keys)
    for override in command.values:
        try:
            if (source := derived.get(override.key_or_group)) is not None:
                raise ConfigError(
                    f"{override.key_or_group!r} follows {source!r}, so that both stay equal: set {source}=<value>"
                )
            _set(config, override)
        except ConfigError as error:
            problems.add(error)
    move_targets(config)
    given, in_epochs = given_paths(command.values), False
    try:
        in_epochs = has_epochs(config, given)
    except ConfigError as error:
        problems.add(error)
    if command.experiment is not None:
        if not OmegaConf.is_missing(config, "experiment"):
            refuse([*problems.texts, f"recipe {command.experiment} lacks its first line '# @package _global_'"])
        with open_dict(config):
            config.experiment = command.experiment
    findings = Findings()
    try:
        walk_names("", OmegaConf.to_container(config), schema, findings)
    except ConfigError as error:
        refuse([*problems.texts, *problems_of(error)])
    variables = findings.set_aside(read_by_others, _read_by_others(config))
    problems.texts += _unknown(findings, command, folders)
    if not command.problems:  # an argument that could not be read may be what is missing
        problems.texts += _missing(findings, command.experiment, " ".join(problems.texts))
    problems.bad.update(findings.absent)
    for path in findings.unknown:
        _drop(config, path)
    problems.copies = _copies(config)
    if schema is RunConfig:
        chosen = any(choice.startswith("collator=") for choice in command.choices)
        try:
            if in_epochs and not problems.texts:
                put_steps(config, instantiate)
            scale_step_counts(config, recipe, given | {"steps"} if in_epochs else given)
            if follows_weights(config, given, option):
                from blip2_train.config.weight_settings import fit_to_weights  # loads torch and transformers

                fit_to_weights(config, given, option, None if chosen else _collator_option)
        except ConfigError as error:
            problems.add(error)
        except Exception:
            if not problems.texts:
                raise
    _resolve(config, problems)
    if not problems.texts:
        fill_in_normalisation(config)
    for path in variables:
        _drop(config, path)
    check_values("", OmegaConf.to_container(config), schema, problems)
    refuse(problems.texts)
    OmegaConf.set_readonly(config, True)
    return config


def instantiate(node: Any, **arguments: Any) -> Any:
    """Build what a node describes; lists and mappings arrive as plain Python.

    Args:
        node: With `_target_`.
        arguments: What the configuration cannot hold; for nodes with `_partial_: true`.

    Raises:
        Blip2TrainError: as the constructor raised it, or a `ConfigError` for any other failure.
    """
    try:
        if OmegaConf.is_config(node) and has_moved_targets(OmegaConf.to_container(node)):
            node = OmegaConf.create(OmegaConf.to_container(node, resolve=True))
            move_targets(node)
        built = hydra.utils.instantiate(node, _convert_="all")
        return built(**arguments) if arguments else built
    except Exception as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
        if isinstance(cause, Blip2TrainError):
            raise cause from error
        raise ConfigError(f"cannot build {node._target_}: {_one_line(cause)}") from error


def _collator_option(name: str) -> DictConfig:
    """An option of the group `collator`, as its file has it."""
    option = OmegaConf.load(config_folder() / "collator" / f"{name}.yaml")
    assert isinstance(option, DictConfig)
    return option


def _folders(extra_folder: Path | None) -> list[Path]:
    if extra_folder is not None and not extra_folder.is_dir():
        raise ConfigError(f"configuration folder {extra_folder} does not exist")
    return [config_folder(), *([extra_folder] if extra_folder else [])]


def _compose(root: str, arguments: Sequence[str], folders: Sequence[Path], extra_folder: Path | None) -> DictConfig:
    search = [f'hydra.searchpath=["file://{extra_folder.absolute()}"]'] if extra_folder else []
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(config_folder().absolute()), version_base="1.3"):
            return hydra.compose(root, [*arguments, *search])
    except HydraException as error:
        raise _explain(str(error), folders) from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or 'the configuration'}: {_one_line(error)}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"a configuration file is not valid YAML: {_one_line(error)}") from error
    except (ValueError, RecursionError) as error:  # no UTF-8, numbers of thousands of digits, too deep, no header
        deep = "lists or mappings are nested too deep"
        reason = deep if isinstance(error, RecursionError) else reason_of(error)
        raise ConfigError(f"{_first_unreadable(folders)} cannot be read ({reason}); mend or remove it") from None


def _first_unreadable(folders: Sequence[Path]) -> str:
    """The newest of the configuration files that YAML cannot read, or that begins with a broken `@package`."""
    files = sorted(
        (file for folder in folders for file in folder.rglob("*.yaml")), key=lambda file: -file.stat().st_mtime
    )
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
            yaml.safe_load(text)
        except (ValueError, RecursionError, yaml.YAMLError):
            return str(file)
        if any(line.startswith("# @") and not _HEADER.match(line) for line in text.splitlines()):
            return str(file)
    return "a configuration file"


def _explain(message: str, folders: Sequence[Path]) -> ConfigError:
    """Hydra's message in one line, with the nearest option or group."""
    where = match.group(0) + ": " if (match := re.match(r"In '[^']+'", message)) else ""
    if match := re.search(r"Could not (?:find|load) '([^']+)/([^'/]+)'", message):
        group, option = match.groups()
        if known := options(group, folders):
            return ConfigError(where + str(no_such_option(group, option, known)))
    if match := re.search(r"Could not override '([^']+)'", message):
        return ConfigError(where + str(no_such_group(match.group(1), [g for f in folders for g in groups_in(f)])))
    if match := re.search(r"You must specify '([^']+)'", message):
        known = options(match.group(1), folders)
        return ConfigError(f"{match.group(1)} is not chosen: pass {match.group(1)}=<{' | '.join(known)}>")
    return ConfigError(_one_line(message))


def _set(config: DictConfig, override: Override) -> None:
    """Set a key, known or not, or delete one, as Hydra would; Hydra would compose everything once more for it."""
    key, value = override.key_or_group, override.value()
    if override.package is not None:
        raise ConfigError(f"{override.input_line!r} names a package, which only groups have: write {key}=<value>")
    if override.is_delete():
        former = OmegaConf.select(config, key, throw_on_missing=False)
        if former is None:
            raise ConfigError(f"~{key} deletes nothing: there is no such key; --cfg job shows the keys")
        if value is not None and value != former:
            raise ConfigError(f"~{key}={value} deletes nothing: {key} is {former}")
        return _drop(config, key)
    try:
        OmegaConf.update(config, key, value, merge=True, force_add=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"cannot set {key}={value}: {_one_line(error)}") from error


def _derived(config: DictConfig, keys: frozenset[str]) -> dict[str, str]:
    """Of keys, those that are copies of a number at the top, and it: `data.image_size` is `${image_size}`."""
    return {key: source for key, source in _copies(config).items() if key in keys and "." not in source}


def _copies(config: DictConfig) -> dict[str, str]:
    """Full path of each value that is `${another}`, and that other's."""
    copies: dict[str, str] = {}

    def walk(path: str, node: Any) -> None:
        inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in inner:
            walk(f"{path}[{key}]" if isinstance(node, list) else f"{path}.{key}" if path else str(key), value)
        if isinstance(node, str) and (match := re.fullmatch(r"\$\{([\w.]+)\}", node)):
            copies[path] = match.group(1)

    walk("", OmegaConf.to_container(config))
    return copies


def _read_by_others(config: DictConfig) -> set[str]:
    """Full paths that values of a configuration are made of: `data.source` if one is `${data.source}`."""
    return set(re.findall(r"\$\{([\w.]+)\}", str(OmegaConf.to_container(config))))


def _resolve(node: Any, problems: ValueProblems, path: str = "") -> None:
    """Replace interpolations by their values, naming the key whose interpolation fails."""
    keys: list[Any] = list(node) if isinstance(node, DictConfig) else list(range(len(node)))
    for key in keys:
        if OmegaConf.is_missing(node, key):
            continue
        name = f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}" if path else str(key)
        try:
            value = node[key]
        except InterpolationToMissingValueError:
            problems.bad.add(name)  # what is missing is reported already
            continue
        except OmegaConfBaseException as error:
            if problems.copies.get(name) in problems.bad:
                continue
            problems.add(ConfigError(f"{name}: {_one_line(error)}; write it without ${{ }}, or name an existing key"))
            continue
        if OmegaConf.is_interpolation(node, key):
            node[key] = value
        if OmegaConf.is_config(value):
            _resolve(node[key], problems, name)


def _drop(config: DictConfig, path: str) -> None:
    parent, _, name = path.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    with open_dict(node):
        del node[name]


def _unknown(findings: Findings, command: CommandOverrides, folders: Sequence[Path]) -> list[str]:
    texts = []
    for path in findings.unknown:
        given = [key for key in command.keys if f"{path}.".startswith(f"{key}.") or key.startswith(f"{path}.")]
        origin = "" if given else f" (set in {_file_with(path, command, folders)})"
        if (instead := _instead_of(path)) is not None:
            texts.append(f"{path!r}{origin} cannot be set: {instead}")
        else:
            texts.append(str(unknown_key(path, max([path, *given], key=len), findings.known, origin)))
    return texts


def _instead_of(path: str) -> str | None:
    """What this project has instead of an option of Lightning's trainer; None if the key is none."""
    group, _, name = path.partition(".")
    if group != "trainer":
        return None
    from blip2_train.training.trainer_options import REPLACED  # loads Lightning: not for a list of recipes

    return REPLACED.get(name.partition(".")[0])


def _missing(findings: Findings, experiment: str | None, reported: str) -> list[str]:
    """What has no value, but for keys that a misspelt one was meant for."""
    where = "the command line" if experiment is None else f"recipe {experiment}"
    unset = "{path} has no value: pass {path}=<value>, or write it into {where}"
    return [
        _MISSING.get(path, unset).format(path=path, experiment=experiment, where=where)
        for path in sorted(findings.absent, key=lambda path: path not in _MISSING)
        if f"{path!r}" not in reported
    ]


def _file_with(path: str, command: CommandOverrides, folders: Sequence[Path]) -> str:
    """The configuration file that sets an unknown key: the recipe if it does, else any other."""
    name = re.compile(rf"(^|[\s{{,]){re.escape(path.rpartition('.')[2])}\s*:", re.MULTILINE)
    files = [
        file for folder in folders for file in sorted(folder.rglob("*.yaml")) if name.search(file.read_text("utf-8"))
    ]
    first = [file for file in files if file.stem == command.experiment]
    return next((f"{file.parent.name}/{file.name}" for file in first + files), "a configuration file")


def _one_line(error: object) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(("See https", "full_key:", "object_type=")))
