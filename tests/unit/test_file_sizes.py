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


def fault(path: Path) -> str | None:
    text = path.read_text("utf-8")
    if (lines := len(text.splitlines())) > LONGEST:
        return f"{lines} lines"
    if MEANINGLESS.search(path.stem):
        return "a name that says nothing"
    return None if not text.strip() or ast.get_docstring(ast.parse(text)) else "no module docstring"


def test_each_fault_is_seen(tmp_path: Path) -> None:
    doc = '"""Doc."""\n'
    texts = {"long": doc * 401, "shard_utils": doc, "shard": "x = 1", "order": doc, "empty": ""}
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text, "utf-8")
    faults = [fault(tmp_path / f"{name}.py") for name in texts]
    assert faults == ["401 lines", "a name that says nothing", "no module docstring", None, None]


def test_modules() -> None:
    faults = {path: fault(path) for path in MODULES}
    assert len(faults) > 300
    assert {path: why for path, why in faults.items() if why} == {}


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
