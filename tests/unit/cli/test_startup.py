"""Help, lists, versions and configurations come at once: no command loads torch, transformers or Lightning for them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from benchmark.comparisons.startup import COMMANDS, heavy_imports, requests

from blip2_train.cli.command_names import INSTALLED
from blip2_train.config.compose import recipes

QUICK = [("evaluate", "--list"), ("describe", "--help"), ("convert_checkpoint", "--help"), ("score", "--help")]


def test_every_command_is_looked_at(root: Path) -> None:
    assert set(INSTALLED) <= set(COMMANDS)
    assert all((root / "scripts" / f"{command}.py").is_file() for command in COMMANDS)


@pytest.mark.slow
@pytest.mark.parametrize(("command", "option"), QUICK)
def test_nothing_heavy_is_loaded(command: str, option: str) -> None:
    assert heavy_imports(command, option) == []


@pytest.mark.slow
@pytest.mark.parametrize(("command", "option"), [request for request in requests() if request not in QUICK])
def test_nothing_heavy_is_loaded_by_others(command: str, option: str) -> None:
    assert heavy_imports(command, option) == []


COMPOSING = """
import sys
from blip2_train.config.compose import compose
for recipe in sys.argv[1:]:
    compose([f"experiment={recipe}", "init_from=null", "init_text_from=null"])
    for name in sorted({"torch", "transformers", "lightning"} & sys.modules.keys()):
        print(recipe, "loads", name)
"""
FEW = ("demo_stage1", "demo_stage2_opt", "retrieval_coco_vit_l", "stage1_vit_g")
"""A shipped BERT, a language model, and the two towers of the paper."""


@pytest.mark.slow
@pytest.mark.parametrize("some", [FEW, pytest.param(recipes(), marks=pytest.mark.slow)], ids=["few", "all"])
def test_nothing_heavy_is_loaded_to_compose_a_recipe(some: Sequence[str], root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMPOSING, *some], capture_output=True, text=True, cwd=root, check=True
    )
    assert done.stdout == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "loaded"), [("stage1_vit_g", ["torch"]), ("stage2_vit_g_opt_2.7b", ["torch", "transformers"])]
)
def test_a_description_loads_only_what_its_model_is_made_of(recipe: str, loaded: list[str]) -> None:
    assert heavy_imports("describe", f"experiment={recipe}") == loaded


def test_what_is_loaded_is_seen(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.comparisons.startup.SCRIPTS", tmp_path)
    (tmp_path / "loads.py").write_text("import sys\nsys.modules['torch'] = sys\n")
    assert heavy_imports("loads", "--help") == ["torch"]
    with pytest.raises(RuntimeError, match=r"absent\.py --help ended with exit code"):
        heavy_imports("absent", "--help")


def test_a_python_without_the_project_is_told_so(root: Path) -> None:
    """In the folder of a checkout any Python finds the package, and not what it needs."""
    code = f"import sys; sys.path.insert(0, {str(root)!r}); import blip2_train; blip2_train.load_pretrained"
    ran = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    last = ran.stderr.splitlines()[-1]
    assert (
        last.startswith("ModuleNotFoundError: blip2_train.load_pretrained needs ")
        and "source .venv/bin/activate" in last
    )
