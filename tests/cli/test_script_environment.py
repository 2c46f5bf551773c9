"""`python scripts/…` with a Python that lacks the project: it goes on in `.venv`, or says in one line what to do."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT = ("gpu_visit.py", "versions.py", "read_by_transformers4.py")
"""Scripts for machines or environments that have not the whole project; `run_scripts/` finds their Python."""


@pytest.fixture
def clone(root: Path, tmp_path: Path) -> Path:
    """A copy of the scripts alone, as in a fresh clone."""
    (tmp_path / "clone" / "scripts").mkdir(parents=True)
    for name in ("_environment.py", "train.py"):
        shutil.copy(root / "scripts" / name, tmp_path / "clone" / "scripts")
    return tmp_path / "clone"


def call(clone: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Call `scripts/train.py` from another folder, in a Python without any installed package."""
    command = [sys.executable, "-S", "-E", str(clone / "scripts" / "train.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=clone.parent)


def test_without_an_environment_one_line_names_what_to_do(clone: Path) -> None:
    done = call(clone, "--list")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and done.stdout == ""
    assert line.startswith(f"error: {sys.executable} (Python ") and "has no blip2_train, torch" in line
    assert "`bash run_scripts/pretrain_stage1.sh` installs everything into .venv" in line


def test_an_environment_beside_the_readme_is_used_with_all_arguments(clone: Path) -> None:
    python = clone / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nexit 7\n')
    python.chmod(0o755)
    done = call(clone, "experiment=demo_stage1", "data.source='a b'")
    script, *arguments = done.stdout.splitlines()
    assert (Path(script), arguments) == (
        clone / "scripts" / "train.py",
        ["experiment=demo_stage1", "data.source='a b'"],
    )
    assert done.returncode == 7, "its exit code is the command's"


def test_what_only_looks_like_an_environment_is_tried_once(clone: Path) -> None:
    python = clone / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "$@"\n')
    python.chmod(0o755)
    done = call(clone, "--list")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "has no blip2_train" in done.stderr


def test_every_script_looks_first(root: Path) -> None:
    """Before anything of a package is imported."""
    for path in sorted((root / "scripts").glob("[!_]*.py")):
        imported = [
            node for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        names = [node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imported]
        others = [name for name in names if str(name).partition(".")[0] not in sys.stdlib_module_names]
        assert path.name in WITHOUT or others[0] == "_environment", path.name
