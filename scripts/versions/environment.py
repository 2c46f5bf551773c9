"""An environment with the lowest or the newest version of everything that `pyproject.toml` admits."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from blip2_train.errors import ConfigError

Bound = Literal["lowest", "newest"]
RESOLUTION: Mapping[Bound, str] = {"lowest": "lowest-direct", "newest": "highest"}
"""What uv calls them: of what `pyproject.toml` names itself; the rest is as new as that allows."""
_LIST = (
    "import importlib.metadata as m, json; "
    "print(json.dumps({d.name.lower().replace('_', '-'): d.version for d in m.distributions()}))"
)
_OWN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX")


class NotInstalled(Exception):
    """The environment of a row could not be made; the message has the reason in one line."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """An environment of one row."""

    python: Path
    versions: Mapping[str, str]
    """Of every package in it, by its name in lower case with hyphens."""


def find_uv(work: Path) -> Path:
    """The uv of this machine, or one that is installed below `work`.

    Raises:
        ConfigError: if it cannot be installed.
    """
    if path := shutil.which("uv"):
        return Path(path)
    venv.create(work / "uv", with_pip=True)
    programs = work / "uv" / ("Scripts" if sys.platform == "win32" else "bin")
    done = finished([programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "uv"])
    if done.returncode:
        raise ConfigError(f"uv, which chooses the versions, cannot be installed: {last_line(done.stderr)}")
    return programs / "uv"


def find_python(uv: Path, python: str) -> Path | None:
    """The interpreter for `3.12` or a path; None if this machine has none. Nothing is downloaded."""
    if Path(python).is_file():
        return Path(python)
    done = finished([uv, "python", "find", "--no-config", "--system", "--no-python-downloads", python])
    return Path(done.stdout.strip()) if done.returncode == 0 else None


def make_environment(uv: Path, interpreter: Path, bound: Bound, project: Path, folder: Path) -> Environment:
    """Install the project, with all its extras, into a fresh environment.

    Args:
        uv: The program.
        interpreter: Python.
        bound: Which versions of what the project names.
        project: Folder of `pyproject.toml`, installed as editable.
        folder: Of the environment; what is downloaded lies there, too, so that nothing is left when it is deleted.

    Raises:
        NotInstalled: if there are no such versions for this Python, or they cannot be installed.
    """
    python = folder / "environment" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    install: list[str | Path] = [uv, "pip", "install", "--python", python, "--cache-dir", folder / "cache"]
    commands: list[list[str | Path]] = [
        [uv, "venv", "--python", interpreter, "--no-python-downloads", python.parents[1]],
        [*install, "--resolution", RESOLUTION[bound], "--all-extras", "-r", project / "pyproject.toml"],
        [*install, "--no-deps", "--editable", project],
    ]
    for command in commands:
        done = finished(command)
        if done.returncode:
            raise NotInstalled(" ".join(done.stderr.split()) or f"exit code {done.returncode}")
    shutil.rmtree(folder / "cache", ignore_errors=True)
    return Environment(python=python, versions=json.loads(finished([python, "-c", _LIST]).stdout))


def finished(command: Sequence[str | Path], **options: object) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, free of the environment that this one runs in; its output is kept as text."""
    environment = {name: value for name, value in os.environ.items() if name not in _OWN}
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, check=False, env=environment, **options)  # type: ignore[call-overload]


def last_line(text: str) -> str:
    """The last line that is not blank."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
