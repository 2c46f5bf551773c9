"""Each part of the package imports only what stands below it, and frameworks stay in their rooms."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "blip2_train"
LAYER = {
    "types": 0, "errors": 0, "system": 0.1, "distributed": 0.2,
    "questions": 0.3, "hub": 0.3, "from_transformers": 0.3, "language_files": 0.4,
    "models": 1, "objectives": 1, "data": 1, "optim": 1,
    "evaluation": 2, "checkpoints": 2,
    "training": 3,
    "config": 4, "pretrained": 4,
    "cli": 5,
}  # fmt: skip
ROOMS = {
    "lightning": ("training",),
    "pytorch_lightning": (),
    "hydra": ("config", "cli"),
    "omegaconf": ("config", "cli"),
    "wandb": (),
    "tensorboard": (),
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(tree: ast.AST) -> list[str]:
    """Full names of the modules a file imports, also inside functions."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def violations(room: str, tree: ast.AST) -> list[str]:
    """What a file of `room` (the part below the package) must not import."""
    wrong = []
    for name in imported(tree):
        first, *rest = name.split(".")
        if first == "blip2_train" and rest and rest[0] != room and rest[0] in LAYER:
            if room in LAYER and LAYER[rest[0]] >= LAYER[room]:
                wrong.append(name)
        elif first in ROOMS and room not in ROOMS[first]:
            wrong.append(name)
    return wrong


def test_the_walk_sees_a_violation() -> None:
    above = "import lightning.pytorch\nfrom blip2_train.training import module"
    beside = "def f():\n    from blip2_train.data import text_cleaning"
    found = violations("models", ast.parse(f"{above}\n{beside}"))
    assert found == ["lightning.pytorch", "blip2_train.training.module", "blip2_train.data.text_cleaning"]


def test_every_room_has_a_layer() -> None:
    rooms = {
        path.name.removesuffix(".py")
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert rooms - {"__init__", "configs"} == set(LAYER)


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_imports_point_down(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert violations(room, ast.parse(path.read_text("utf-8"))) == []
