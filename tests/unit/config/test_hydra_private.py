"""Private names of Hydra and omegaconf are used in one file."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from omegaconf import DictConfig, ListConfig

ROOT = Path(__file__).parents[3]
FENCE = ROOT / "blip2_train" / "config" / "hydra_private.py"
FILES = [path for room in ("blip2_train", "scripts") for path in (ROOT / room).rglob("*.py")]
PRIVATE_METHODS = {
    name for kind in (DictConfig, ListConfig) for name in dir(kind) if re.fullmatch(r"_[a-z][a-z_]*[a-z]", name)
} - {"_is_none", "_key", "_load", "_parent"}
"""Of configurations, without names that classes of others have too."""


def private_names(text: str) -> list[str]:
    used = []
    for node in ast.walk(ast.parse(text)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        used += [n for n in names if re.match(r"(hydra|omegaconf)\.(.*\.)?_", n)]
        if isinstance(node, ast.Attribute) and node.attr in PRIVATE_METHODS:
            used.append(node.attr)
    return used


def test_the_search_sees_private_names() -> None:
    text = "from hydra._internal import callbacks\nimport omegaconf._utils\nx = node._get_full_key(1) + node._target_"
    assert private_names(text) == ["hydra._internal.callbacks", "omegaconf._utils", "_get_full_key"]


@pytest.mark.slow
def test_private_names_are_used_in_one_file() -> None:
    used = {path: private_names(path.read_text("utf-8")) for path in FILES}
    assert used.pop(FENCE)
    assert {path: names for path, names in used.items() if names} == {}
