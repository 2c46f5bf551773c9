"""Shared by all commands: options, help, errors in one line, exit codes."""

from __future__ import annotations

import atexit
import logging
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

from omegaconf import DictConfig, OmegaConf

from blip2_train.cli import end_while_loading, interrupted_status
from blip2_train.cli.command_names import as_called, version_line
from blip2_train.cli.system_errors import system_error_line
from blip2_train.config.compose import compose, compose_evaluation, config_folder, recipes
from blip2_train.config.overrides import options
from blip2_train.config.pipe_addresses import allow_typed_commands
from blip2_train.errors import Blip2TrainError, ConfigError, RunStopped, problems_of
from blip2_train.system.interrupt import watch_interrupts
from blip2_train.system.launcher import launched_as_first_process
from blip2_train.system.screen import echo, plain_logs, printable

_GROUPS = ("model/vision_model", "model/qformer", "data", "trainer", "logger", "debug")
_HELP = """\
{about}

usage: {usage} experiment=<recipe> [group=option …] [key=value …]

  --list             the recipes, with what each is for
  --cfg job          print the whole configuration and stop
  --config-dir DIR   also look for recipes and options in DIR (laid out as {folder})
  --version          name and version
  --help             this text

recipes: {recipes}
{groups}
Any key of the configuration can be set: optim.lr=2e-4 seed=1. train.py --multirun makes a run of each
combination of values (optim.lr=1e-4,2e-4 seed=range(0,3)), here or with hydra/launcher=submitit_slurm on a cluster."""
_EVALUATION_HELP = """\
Evaluate models on one or several sets, and write scores, predictions and a page to look at.

usage: python scripts/evaluate.py evaluation=[<task>,…] checkpoint=<export, Hugging Face folder or id, LAVIS file>

  --list             the tasks, with what each is
  --cfg job          print the whole configuration and stop
  --config-dir DIR   also look for tasks in DIR (laid out as {folder})
  --version          name and version
  --help             this text

tasks: {tasks}
checkpoint=last:<recipe> is the newest export of a recipe here; checkpoints.captioning=, checkpoints.vqa= and
checkpoints.retrieval= name one for a kind of task. An evaluation that was stopped goes on with
paths.run_dir=<its folder>; several processes share the work: torchrun --nproc_per_node=8 scripts/evaluate.py …"""


_kept = ""


def kept_when_stopped(text: str) -> None:
    """Say what is kept, and how to go on, should Ctrl-C stop the command from now on."""
    global _kept
    _kept = text


def run_command(main: Callable[[list[str]], None], arguments: Sequence[str] | None = None) -> int:
    """Run a command; what a user can mend becomes one line on stderr.

    Args:
        main: Takes the arguments.
        arguments: `sys.argv[1:]` if None.

    Returns:
        0, also if the output is not read to its end, or 2 after a `Blip2TrainError` or where the system refuses
        (`system_errors`; with BLIP2_TRACEBACK=1 the traceback is shown too), 130 after Ctrl-C, 143 or 138 after SIGTERM
        or SIGUSR1 stopped a run that was saved (0 in all but its first process).
    """
    if isinstance(sys.stdout, TextIOWrapper):  # names that are no UTF-8, as standard error shows them
        with suppress(OSError):
            sys.stdout.reconfigure(errors="backslashreplace")
    plain_logs([logging.lastResort])
    kept_when_stopped("nothing was written")
    if signal.getsignal(signal.SIGINT) is end_while_loading:
        watch_interrupts(_end_stopped)
    try:
        typed = list(sys.argv[1:] if arguments is None else arguments)
        if typed == ["--version"]:
            echo(version_line())
            return 0
        allow_typed_commands(typed)
        main(typed)
        sys.stdout.flush()
    except Blip2TrainError as error:
        if os.environ.get("BLIP2_TRACEBACK") == "1":
            raise
        for problem in problems_of(error):
            echo("error: " + as_called(" ".join(problem.split("\n"))), file=sys.stderr)
        return 2
    except BrokenPipeError:
        if not _read_no_more(sys.stdout):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except RunStopped as stop:
        if stop.signal == signal.SIGINT:
            signal.signal(signal.SIGINT, _end)  # a second one, while Python ends
        return stop.status
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, _end)
        if launched_as_first_process():
            echo(f"stopped by Ctrl-C; {_kept}", file=sys.stderr)
        return interrupted_status()
    except Exception as error:
        line = system_error_line(error)
        if line is None or os.environ.get("BLIP2_TRACEBACK") == "1":
            raise
        echo("error: " + as_called(" ".join(line.split("\n"))), file=sys.stderr)
        return 2
    return 0


def _end(*_: object) -> None:
    os._exit(interrupted_status())


def _end_stopped() -> None:
    if launched_as_first_process():
        os.write(2, f"stopped by Ctrl-C; {printable(_kept)}\n".encode())
    _end()


def _ignore_to_the_end() -> None:
    """Before it has ended, Python restores the system's handling of Ctrl-C, which would replace the exit code."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


atexit.register(_ignore_to_the_end)  # now, so that it comes after what others do at the end


def _read_no_more(stream: TextIO) -> bool:
    """Whether the reader of a stream has seen enough, as `head` has after ten lines."""
    ends = select.poll()
    ends.register(stream.fileno(), 0)
    return any(event & select.POLLERR for _, event in ends.poll(0))


def config_from(arguments: Sequence[str], about: str, usage: str) -> DictConfig | None:
    """The configuration that the arguments ask for; None if they ask for help or a printout, which is then given.

    Args:
        arguments: Of the command line.
        about: What the command does, one sentence.
        usage: How it is called, without arguments.

    Raises:
        ConfigError: if they cannot be used.
    """
    overrides, show, folder = split_arguments(arguments)
    if show == "help":
        listed = "".join(f"{group}: {', '.join(options(group, [config_folder()]))}\n" for group in _GROUPS)
        names = ", ".join(recipes(folder))
        text = _HELP.format(about=about, usage=usage, folder=config_folder().name, recipes=names, groups=listed)
        echo(as_called(text))
        return None
    return _shown("experiment", show, folder, lambda: compose(overrides, folder))


def evaluation_from(arguments: Sequence[str]) -> DictConfig | None:
    """The same for an evaluation."""
    overrides, show, folder = split_arguments(arguments)
    if show == "help":
        names = ", ".join(options("evaluation", _folders(folder)))
        echo(as_called(_EVALUATION_HELP.format(folder=config_folder().name, tasks=names)))
        return None
    return _shown("evaluation", show, folder, lambda: compose_evaluation(overrides, folder))


def _shown(group: str, show: str, folder: Path | None, make: Callable[[], DictConfig]) -> DictConfig | None:
    """The configuration; None if the group's options or the configuration itself are printed instead."""
    if show == "list":
        every = options(group, _folders(folder))
        width = max(map(len, every)) + 2
        for name in every:
            echo(as_called(f"{name:{width}}{_purpose(group, name, folder)}"))
        return None
    if show != "cfg" and launched_as_first_process():
        logging.basicConfig(format="%(message)s")
        plain_logs(logging.getLogger().handlers)
        logging.getLogger("blip2_train").setLevel(logging.INFO)  # values that were derived from others are logged
    config = make()
    if show == "cfg":
        echo(OmegaConf.to_yaml(config), end="")
        return None
    return config


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], str, Path | None]:
    """Settings, what is to be shown instead of run ("" = nothing), and the folder with more recipes.

    Raises:
        ConfigError: if an option cannot be used.
    """
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
            raise ConfigError(f"{option}: sweeps are made of trainings only: python scripts/train.py --multirun …")
        else:
            settings.append(argument)
    return settings, show, folder


def _folders(folder: Path | None) -> list[Path]:
    return [config_folder(), *([folder] if folder else [])]


def _purpose(group: str, name: str, folder: Path | None) -> str:
    """The first comment of an option after its package line."""
    for parent in _folders(folder):
        file = parent / group / f"{name}.yaml"
        if file.is_file():
            comments = [line[1:].strip() for line in file.read_text("utf-8").splitlines() if line.startswith("#")]
            return next((comment for comment in comments if not comment.startswith("@")), "")
    return ""
