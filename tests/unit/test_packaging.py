"""A wheel holds what a checkout has: every module, every configuration file, every asset."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path


def test_wheel_is_complete(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    skip = shutil.ignore_patterns("__pycache__")
    for name in ("blip2_train", "configs"):
        shutil.copytree(root / name, source / name, ignore=skip)
    for name in ("pyproject.toml", "README.md", ".gitignore"):
        shutil.copy(root / name, source / name)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        packed = set(wheel.namelist())
    modules = {str(path.relative_to(source)) for path in (source / "blip2_train").rglob("*") if path.is_file()}
    settings = {f"blip2_train/{path.relative_to(source)}" for path in (source / "configs").rglob("*.yaml")}
    assert len(settings) > 20
    assert (modules | settings) - packed == set()
    assert {name for name in packed if name.endswith("entry_points.txt")}
