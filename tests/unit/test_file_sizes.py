"""Modules stay short, say in one sentence what they are, and have a name that says something."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "blip2_train").rglob("*.py"))
SCRIPTS = sorted((ROOT / "scripts").glob("[!_]*.py"))
SHELL = sorted((ROOT / "run_scripts").rglob("*.sh"))
MEANINGLESS = re.compile(r"(^|_)(utils?|helpers?|common|misc|managers?|handlers?)(_|$)|^base_")
LONGEST = 400


def relative(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


@pytest.mark.parametrize("path", MODULES, ids=relative(MODULES))
def test_module(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= LONGEST
    assert not MEANINGLESS.search(path.stem)
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), "no module docstring"


def test_median_length() -> None:
    lengths = sorted(len(path.read_text("utf-8").splitlines()) for path in MODULES if path.stat().st_size)
    assert lengths[len(lengths) // 2] <= 150


@pytest.mark.parametrize("path", SCRIPTS, ids=relative(SCRIPTS))
def test_script_is_a_shim(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 8


@pytest.mark.parametrize("path", SHELL, ids=relative(SHELL))
def test_shell_script_is_short_and_strict(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 15
    assert path.name.startswith("_") or ("set -euo pipefail" in text and "_environment.sh" in text and '"$@"' in text)
