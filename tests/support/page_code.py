"""Writes the titled code blocks of a page of documentation as files: ```` ```python title="name.py" ````."""

from __future__ import annotations

import re
from pathlib import Path

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
