"""The manners shared by all commands: options, help, errors in one line, exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from blip2_train.cli.compose import compose, config_folder, recipes
from blip2_train.cli.overrides import options
from blip2_train.errors import Blip2TrainError, ConfigError

_GROUPS = ("model/vision_model", "model/qformer", "data", "trainer", "logger", "debug")
_HELP = """\
{about}

usage: {usage} experiment=<recipe> [group=option …] [key=value …]

  --list             the recipes, with what each is for
  --cfg job          print the whole configuration and stop
  --config-dir DIR   also look for recipes and options in DIR (laid out as {folder})
  --help             this text

recipes: {recipes}
{groups}
Any key of the configuration can be set: optim.lr=2e-4 seed=1. A sweep is a loop of the shell over such commands."""


def run_command(main: Callable[[list[str]], None], arguments: Sequence[str] | None = None) -> int:
    """Run a command; what a user can mend becomes one line on stderr.

    Args:
        main: Takes the arguments.
        arguments: `sys.argv[1:]` if None.

    Returns:
        0, or 2 after a `Blip2TrainError` (with BLIP2_TRACEBACK=1 its traceback is shown too), 130 after Ctrl-C.
    """
    try:
        main(list(sys.argv[1:] if arguments is None else arguments))
    except Blip2TrainError as error:
        if os.environ.get("BLIP2_TRACEBACK") == "1":
            raise
        print("error: " + " ".join(str(error).split("\n")), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped by the keyboard", file=sys.stderr)
        return 130
    return 0


def config_from(arguments: Sequence[str], about: str, usage: str) -> DictConfig | None:
    """The configuration that the arguments ask for; None if they ask for help or a printout, which is then given.

    Args:
        arguments: Of the command line.
        about: What the command does, one sentence.
        usage: How it is called, without arguments.

    Raises:
        ConfigError: if they cannot be used.
    """
    overrides, show, folder = _split(arguments)
    if show == "help":
        listed = "".join(f"{group}: {', '.join(options(group, [config_folder()]))}\n" for group in _GROUPS)
        names = ", ".join(recipes(folder))
        print(_HELP.format(about=about, usage=usage, folder=config_folder().name, recipes=names, groups=listed))
        return None
    if show == "list":
        every = recipes(folder)
        width = max(map(len, every)) + 2
        for name in every:
            print(f"{name:{width}}{_purpose(name, folder)}")
        return None
    config = compose(overrides, folder)
    if show == "cfg":
        print(OmegaConf.to_yaml(config), end="")
        return None
    return config


def _split(arguments: Sequence[str]) -> tuple[list[str], str, Path | None]:
    """Settings, what is to be shown instead of run, and the folder with more recipes."""
    settings: list[str] = []
    show, folder = "", None
    rest = iter(arguments)
    for argument in rest:
        option, _, value = argument.partition("=") if argument.startswith("--") else (argument, "", "")
        if option in ("--help", "-h"):
            show = "help"
        elif option == "--list":
            show = "list"
        elif option in ("--cfg", "-c"):
            value = value or next(rest, "job")
            if value != "job":
                raise ConfigError(f"--cfg {value} is not known; write --cfg job")
            show = "cfg"
        elif option == "--config-dir":
            folder = Path(value or next(rest, "")).expanduser()
            if not str(value or folder) or not folder.is_dir():
                raise ConfigError(f"--config-dir {folder}: there is no such folder")
        elif option in ("--multirun", "-m"):
            raise ConfigError(
                "a sweep is a loop of the shell: for lr in 1e-4 2e-4; do <this command> optim.lr=$lr; done"
            )
        else:
            settings.append(argument)
    return settings, show, folder


def _purpose(name: str, folder: Path | None) -> str:
    """The first comment of a recipe after its package line."""
    for place in [config_folder(), *([folder] if folder else [])]:
        file = place / "experiment" / f"{name}.yaml"
        if file.is_file():
            comments = [line[1:].strip() for line in file.read_text("utf-8").splitlines() if line.startswith("#")]
            return next((comment for comment in comments if not comment.startswith("@")), "")
    return ""
