"""What a row of the fault test runs where a day is to be bad: makes it bad, and becomes the command.

`child.py <conditions as JSON> <script> [argument …]`. Conditions:
  hide:      modules that are not installed
  small:     {folder: bytes}: a file system of so many bytes is mounted there, for this process and its own only
  read_only: folders that become read-only mounts, for this process and its own only
  listing:   file that gets the names of what is left in the folders of `small`, with sizes
  rlimit:    {name of a limit: value}
  out_of_memory: optimiser step at which the device reports that its memory is used up
"""

from __future__ import annotations

import builtins
import ctypes
import json
import os
import resource
import runpy
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

_NEW_USER, _NEW_MOUNTS = 0x10000000, 0x00020000
_READ_ONLY, _REMOUNT, _BIND, _PRIVATE, _RECURSIVE = 1, 32, 4096, 1 << 18, 16384
_LIBC = ctypes.CDLL(None, use_errno=True)


class _Hidden:
    """Finds no module of these names, wherever it lies."""

    def __init__(self, names: list[str]) -> None:
        self.names = set(names)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def hide(names: list[str]) -> None:
    """Let modules be as if they were not installed."""
    for name in [name for name in sys.modules if name.partition(".")[0] in names]:
        del sys.modules[name]
    sys.meta_path.insert(0, _Hidden(names))  # type: ignore[arg-type]
    from importlib import metadata, util

    original, version = util.find_spec, metadata.version

    def find(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name.partition(".")[0] in names else original(name, package)

    def version_of(name: str) -> str:
        if name in names:
            raise metadata.PackageNotFoundError(name)
        return version(name)

    util.find_spec, metadata.version = find, version_of


def _call(name: str, *arguments: Any) -> None:
    if getattr(_LIBC, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def own_mounts() -> None:
    """Leave the mounts of this machine: what is mounted from now on is seen here only, and goes with the process."""
    if os.geteuid() == 0:
        _call("unshare", _NEW_MOUNTS)
    else:
        user, group = os.geteuid(), os.getegid()
        _call("unshare", _NEW_USER | _NEW_MOUNTS)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _call("mount", b"none", b"/", None, _PRIVATE | _RECURSIVE, None)


def mount_small(folder: Path, size: int) -> None:
    """A file system of `size` bytes, with what was in the folder."""
    before = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    _call("mount", b"none", os.fsencode(folder), b"tmpfs", 0, f"size={size}".encode())
    for name, content in before.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def mount_read_only(folder: Path) -> None:
    """The same folder, in which nothing can be written."""
    _call("mount", os.fsencode(folder), os.fsencode(folder), None, _BIND, None)
    _call("mount", None, os.fsencode(folder), None, _BIND | _REMOUNT | _READ_ONLY, None)


def left_in(folders: list[str]) -> dict[str, int]:
    """Files below folders, with their sizes."""
    return {str(p): p.stat().st_size for folder in folders for p in Path(folder).rglob("*") if p.is_file()}


def main() -> None:
    """Make the day bad, and become the command."""
    conditions, script = json.loads(sys.argv[1]), sys.argv[2]
    sys.argv[:] = sys.argv[2:]
    sys.path[0] = str(Path(script).parent)
    if conditions.get("hide"):
        hide(conditions["hide"])
    small, read_only = conditions.get("small", {}), conditions.get("read_only", [])
    if small or read_only:
        own_mounts()
    for folder, size in small.items():
        mount_small(Path(folder), size)
    for folder in read_only:
        mount_read_only(Path(folder))
    for name, value in conditions.get("rlimit", {}).items():
        resource.setrlimit(getattr(resource, name), (value, value))
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        if "listing" in conditions:
            with builtins.open(conditions["listing"], "w") as file:
                json.dump(left_in(list(small)), file)


if __name__ == "__main__":
    main()
