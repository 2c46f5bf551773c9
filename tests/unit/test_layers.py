"""Each part of the package imports only what stands below it, and frameworks stay in their rooms."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "blip2_train"
LAYER = {
    "types": 0, "errors": 0, "system": 0.1, "distributed": 0.2,
    "hub": 0.3, "from_transformers": 0.3, "transformers_names": 0.3, "language_files": 0.4,
    "models": 1, "objectives": 1, "data": 1, "optim": 1,
    "evaluation": 2, "checkpoints": 2,
    "training": 3,
    "config": 4, "pretrained": 4,
    "app": 4.5,
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
    wrong = violations("models", ast.parse(f"{above}\n{beside}"))
    assert wrong == ["lightning.pytorch", "blip2_train.training.module", "blip2_train.data.text_cleaning"]


def test_every_room_has_a_layer() -> None:
    rooms = {
        path.name.removesuffix(".py")
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert rooms - {"__init__", "configs"} == set(LAYER)


def test_imports_point_down() -> None:
    rooms = {path: path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES}
    wrong = {path: violations(room, ast.parse(path.read_text("utf-8"))) for path, room in rooms.items()}
    assert {path: names for path, names in wrong.items() if names} == {}


def graph(files: dict[str, str]) -> dict[str, set[str]]:
    """For each module the modules that it imports: anywhere, also in functions and for the type checker alone.

    Args:
        files: Source text of each module by its full name; a package is called without `__init__`.
    """
    edges: dict[str, set[str]] = {}
    for module, text in files.items():
        names = (name if name in files else name.rpartition(".")[0] for name in imported(ast.parse(text)))
        edges[module] = {name for name in names if name in files and name != module}
    return edges


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules each of which can be reached from each other one, the names sorted."""
    reached: dict[str, set[str]] = {}
    for module in edges:
        seen, waiting = set[str](), [module]
        while waiting:
            for name in edges[waiting.pop()] - seen:
                seen.add(name)
                waiting.append(name)
        reached[module] = seen
    groups = {frozenset(name for name in reached[m] if m in reached[name]) for m in edges if m in reached[m]}
    return sorted(map(sorted, groups))


def test_the_walk_sees_a_circle() -> None:
    files = {
        "p": "",
        "p.a": "from p import b",
        "p.b": "def f():\n    import p.c",
        "p.c": "if TYPE_CHECKING:\n    from p.a import A",
        "p.d": "from p.a import A\nimport p.e",
        "p.e": "",
    }
    assert circles(graph(files)) == [["p.a", "p.b", "p.c"]]


def test_no_modules_import_each_other() -> None:
    parts = {path: path.relative_to(PACKAGE.parent).with_suffix("").parts for path in FILES}
    files = {".".join(p[:-1] if p[-1] == "__init__" else p): path.read_text("utf-8") for path, p in parts.items()}
    edges = graph(files)
    assert sum(map(len, edges.values())) > 5 * len(files) / 2  # the walk sees the package
    assert circles(edges) == []
