"""Help, lists and versions come at once: no command loads torch, transformers or Lightning for them."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmark.comparisons.startup import COMMANDS, heavy_imports, requests

from blip2_train.cli.command_names import INSTALLED

QUICK = [("evaluate", "--list"), ("describe", "--help"), ("convert_checkpoint", "--help"), ("score", "--help")]


def test_every_command_is_looked_at(root: Path) -> None:
    assert set(INSTALLED) <= set(COMMANDS)
    assert all((root / "scripts" / f"{command}.py").is_file() for command in COMMANDS)


@pytest.mark.parametrize(("command", "option"), QUICK)
def test_nothing_heavy_is_loaded(command: str, option: str) -> None:
    assert heavy_imports(command, option) == []


@pytest.mark.slow
@pytest.mark.parametrize(("command", "option"), [request for request in requests() if request not in QUICK])
def test_nothing_heavy_is_loaded_by_others(command: str, option: str) -> None:
    assert heavy_imports(command, option) == []


def test_what_is_loaded_is_seen(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.comparisons.startup.SCRIPTS", tmp_path)
    (tmp_path / "loads.py").write_text("import sys\nsys.modules['torch'] = sys\n")
    assert heavy_imports("loads", "--help") == ["torch"]
    with pytest.raises(RuntimeError, match=r"absent\.py --help ended with exit code"):
        heavy_imports("absent", "--help")
