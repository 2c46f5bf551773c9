"""Imports between modules of the package: circles, imports of higher layers, and `isinstance` of models."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

PACKAGE = "blip2_train"
Graph = dict[str, set[str]]


class Sources:
    """The parsed modules of a checkout's package, by their full names."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.trees: dict[str, ast.Module] = {}
        for path in sorted((root / PACKAGE).rglob("*.py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            self.trees[name] = ast.parse(path.read_text("utf-8"))

    def imported(self, module: str) -> dict[str, str]:
        """Names that a module imports from the package, also inside functions and for types only, by what they are."""
        names: dict[str, str] = {}
        for node in ast.walk(self.trees[module]):
            if isinstance(node, ast.Import):
                names |= {alias.asname or alias.name: alias.name for alias in node.names if self._is_own(alias.name)}
            elif isinstance(node, ast.ImportFrom) and node.module and self._is_own(node.module):
                names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        return names

    def graph(self) -> Graph:
        """The modules that each module imports."""
        return {
            module: {self._module(name) for name in self.imported(module).values()} - {module, PACKAGE}
            for module in self.trees
        }

    def layers(self) -> dict[str, float]:
        """The layer of each room, as the checkout's own test of layers says."""
        tree = ast.parse((self.root / "tests/unit/test_layers.py").read_text("utf-8"))
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "LAYER":
                return dict(ast.literal_eval(node.value))
        raise LookupError("tests/unit/test_layers.py has no LAYER")

    def model_checks(self) -> list[tuple[str, int]]:
        """Module and line of each `isinstance` of a model or a part of one, outside `models/`."""
        return [
            (module, node.lineno)
            for module, tree in self.trees.items()
            if not module.startswith(f"{PACKAGE}.models")
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance"
            if self._of_models(module, node.args[1])
        ]

    def _of_models(self, module: str, classes: ast.expr) -> bool:
        own = self.imported(module)
        names = {own.get(node.id, "") for node in ast.walk(classes) if isinstance(node, ast.Name)}
        return bool(names & self.models)

    @cached_property
    def models(self) -> set[str]:
        """Full names of the classes of `models/` that are modules of torch, or inherit from one."""
        classes = [
            (f"{module}.{node.name}", {ast.unparse(base).rpartition(".")[2].partition("[")[0] for base in node.bases})
            for module, tree in self.trees.items()
            if module.startswith(f"{PACKAGE}.models")
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
        ]
        known: set[str] = set()
        while more := {name for name, bases in classes if bases & {"Module", *map(_last, known)}} - known:
            known |= more
        return known

    def _module(self, name: str) -> str:
        while name not in self.trees:
            name = name.rpartition(".")[0]
        return name

    @staticmethod
    def _is_own(name: str) -> bool:
        return name == PACKAGE or name.startswith(f"{PACKAGE}.")


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def upward(graph: Mapping[str, Iterable[str]], layers: Mapping[str, float]) -> list[tuple[str, str]]:
    """Imports of a room that does not stand lower."""
    room = {module: module.split(".")[1] if "." in module else "" for module in graph}
    return [
        (module, other)
        for module, others in sorted(graph.items())
        for other in sorted(others)
        if room[module] in layers
        and room[other] != room[module]
        and layers.get(room[other], -1) >= layers[room[module]]
    ]


def between(graph: Mapping[str, Iterable[str]], depth: int) -> Graph:
    """The same between packages: full names cut after `depth` parts."""
    packages: Graph = {}
    for module, others in graph.items():
        package = ".".join(module.split(".")[:depth])
        packages.setdefault(package, set()).update(".".join(other.split(".")[:depth]) for other in others)
        packages[package].discard(package)
    return packages


def circles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Groups of modules each of which imports, over others, all of its group (Tarjan, without recursion)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups = []
    for start in sorted(graph):
        if start in order:
            continue
        work = [(start, iter(sorted(graph[start])))]
        order[start] = low[start] = len(order)
        stack.append(start)
        while work:
            module, others = work[-1]
            for other in others:
                if other not in order:
                    order[other] = low[other] = len(order)
                    stack.append(other)
                    work.append((other, iter(sorted(graph.get(other, ())))))
                    break
                if other in stack:
                    low[module] = min(low[module], order[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[module])
                if low[module] == order[module]:
                    group = stack[stack.index(module) :]
                    del stack[stack.index(module) :]
                    groups += [sorted(group)] if len(group) > 1 else []
    return groups
