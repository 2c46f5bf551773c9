"""Writes the titled code blocks of a page of documentation as files: ```` ```python title="name.py" ````."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

_BLOCK = re.compile(r'^```\w+ title="([^"]+)"\n(.*?)^```$', re.DOTALL | re.MULTILINE)


def write_blocks(page: Path, folder: Path) -> list[str]:
    """Write each titled block of `page` below `folder`; their names, in the order of the page."""
    blocks = _BLOCK.findall(page.read_text("utf-8"))
    for name, text in blocks:
        path = folder / name
        assert ".." not in path.parts and not path.exists(), f"{page.name} has {name} twice, or outside the folder"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return [name for name, _ in blocks]


def importable_example(page: Path, folder: Path, files: list[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the page's files, which its table names, to a folder that Python imports from; returns the folder."""
    assert write_blocks(page, folder) == files
    table = page.read_text("utf-8")
    assert [name for name in files if f"| `{name}` |" in table] == files
    monkeypatch.syspath_prepend(folder)
    for name in files:
        monkeypatch.delitem(sys.modules, Path(name).stem, raising=False)
    return folder


def run_page_tests(module: str, count: int, folder: Path | None = None) -> None:
    """Run the `count` tests of a page's module, each with a folder of its own below `folder` if they take one."""
    tests = import_module(module)
    names = [name for name in dir(tests) if name.startswith("test_")]
    assert len(names) == count
    for name in names:
        if folder is None:
            getattr(tests, name)()
        else:
            (folder / name).mkdir()
            getattr(tests, name)(folder / name)
