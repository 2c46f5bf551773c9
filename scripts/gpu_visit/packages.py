"""Small wheels for a machine without network: downloaded here, unpacked there where the machine lacks the package."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gpu_visit.options import PACKED, OptionError

LOWEST = {
    "hydra-core": "1.3.2", "omegaconf": "2.3", "webdataset": "1.0.2", "braceexpand": "0.1.7", "msgspec": "0.20",
    "timm": "1.0.31", "torchmetrics": "1.8", "safetensors": "0.8", "pytest": "8.4", "pytest-timeout": "2.4",
    "pluggy": "1.5", "iniconfig": "1.1",
}  # fmt: skip
"""Lower bounds of the packages that are packed; the same as in pyproject.toml, where that names them."""
SOURCE_ONLY = ("antlr4-python3-runtime==4.9.3",)
"""What omegaconf needs, of which there are no wheels: one is built, in pure Python."""
OPTIONAL = ("torchao", "simplejpeg")
"""Packed if they can be had."""
MOST_BYTES = 60 * 2**20
"""Of all wheels together."""
_PLATFORMS = [f"manylinux_2_{number}_x86_64" for number in (34, 28, 27, 24, 17)] + ["manylinux2014_x86_64"]


def pack(arguments: Sequence[str]) -> None:
    """Download the wheels into `PACKED`, in the versions that are installed here.

    Args:
        arguments: `python=3.12`, the version of Python there; `packed=<folder>`.

    Raises:
        OptionError: if a setting is unknown, pip fails, or the wheels are too large.
    """
    settings = {"python": "3.12", "packed": str(PACKED)}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or name not in settings:
            raise OptionError(f"pack {argument}: write python=<version> or packed=<folder>")
        settings[name] = value
    folder = Path(settings["packed"]).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.whl"):
        old.unlink()
    target = ["--only-binary=:all:", "--implementation", "cp", "--python-version", settings["python"]]
    target += [word for platform in _PLATFORMS for word in ("--platform", platform)]
    _pip("download", *target, "-d", str(folder), *(_requirement(name, lowest) for name, lowest in LOWEST.items()))
    _pip("wheel", "-w", str(folder), *SOURCE_ONLY)
    for name in OPTIONAL:
        try:
            _pip("download", *target, "-d", str(folder), name)
        except OptionError as error:
            print(f"left out: {error}", file=sys.stderr)
    size = sum(wheel.stat().st_size for wheel in folder.glob("*.whl"))
    if size > MOST_BYTES:
        raise OptionError(f"the wheels in {folder} take {size / 2**20:.0f} MiB, more than {MOST_BYTES / 2**20:.0f}")
    print(f"{len(list(folder.glob('*.whl')))} wheels, {size / 2**20:.1f} MiB, in {folder}")


def unpack_missing(packed: Path, folder: Path) -> list[str]:
    """Unpack the wheels whose package this machine lacks, or has below the project's lower bound.

    Args:
        packed: Folder with the wheels.
        folder: Where they are unpacked; an optional one into a folder of its own, see `folder_of`.

    Returns:
        Name and version of each.
    """
    unpacked = []
    for wheel in sorted(packed.glob("*.whl")):
        name, number = wheel.name.split("-")[:2]
        name = name.replace("_", "-").lower()
        if _installed(name) < _numbers(LOWEST.get(name, "0")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder_of(name, folder))
            unpacked.append(f"{name} {number}")
    return unpacked


def folder_of(name: str, folder: Path) -> Path:
    """Where a package is unpacked below `folder`; what is not optional lies together."""
    return folder / (name if name in OPTIONAL else "packages")


def _installed(name: str) -> tuple[int, ...]:
    """Version of a package on this machine; (-1,) if there is none."""
    try:
        number: str | None = version(name)  # None of a folder of metadata without any
    except PackageNotFoundError:
        number = None
    return (-1,) if number is None else _numbers(number)


def _numbers(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: 1.0.31 of `1.0.31.dev0`."""
    return tuple(int(part) for part in re.match(r"\d+(\.\d+)*", text)[0].split("."))  # type: ignore[index]


def _requirement(name: str, lowest: str) -> str:
    installed = _installed(name)
    return f"{name}=={version(name)}" if installed >= _numbers(lowest) else f"{name}>={lowest}"


def _pip(verb: str, *arguments: str) -> None:
    command = [sys.executable, "-m", "pip", verb, "--quiet", "--disable-pip-version-check", "--no-deps", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reasons = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise OptionError(f"pip {verb} {arguments[-1]}: {reasons[-1] if reasons else 'failed'}")
