"""What the classes and functions of this package take, read from their source without importing them.

A configuration names modules that need torch, transformers and Lightning. To print or check it, only their arguments
have to be known. Whatever the source does not say plainly (decorators, bases of other packages) is imported instead.
"""

from __future__ import annotations

import ast
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_PACKAGE = "blip2_train."
_Definition = ast.ClassDef | ast.FunctionDef


@dataclass(frozen=True)
class Arguments:
    """What a callable or a dataclass takes."""

    annotations: dict[str, Any]
    """Type of each argument by name, `Any` where none is written."""
    required: frozenset[str]
    takes_any: bool
    """Whether it has `**kwargs`."""


class DescribedClass:
    """Base of what stands for a class that was not imported."""

    arguments: Arguments


@dataclass(frozen=True, eq=False)
class DescribedFunction:
    """Stands for a function that was not imported."""

    arguments: Arguments

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Nothing: it only describes."""
        raise TypeError("a description cannot be called")


Described = type[DescribedClass] | DescribedFunction


@cache
def described(name: str) -> Described | None:
    """What stands for a class or function of this package.

    Args:
        name: With its module: `blip2_train.training.generation.GenerationModule`.

    Returns:
        None if it has to be imported: it is a dataclass, or of another package, or imported already, or not to be seen.
    """
    module, _, last = name.rpartition(".")
    if not module.startswith(_PACKAGE) or module in sys.modules:
        return None
    definition = _definitions(module).get(last)
    if not isinstance(definition, _Definition) or definition.decorator_list:
        return None
    arguments = _arguments(module, definition)
    if arguments is None:
        return None
    if isinstance(definition, ast.ClassDef):
        return type(last, (DescribedClass,), {"arguments": arguments})
    return DescribedFunction(arguments)


@cache
def _definitions(module: str) -> dict[str, Any]:
    """Classes, functions, values and imports at the top of a module by name, also those for type checkers."""
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:
        return {}
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return {}
    definitions: dict[str, Any] = {}

    def take(statements: list[ast.stmt]) -> None:
        for statement in statements:
            if isinstance(statement, _Definition):
                definitions[statement.name] = statement
            elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                definitions[statement.targets[0].id] = statement.value
            elif isinstance(statement, ast.ImportFrom):
                for alias in statement.names:
                    definitions[alias.asname or alias.name] = (statement.module, alias.name)
            elif isinstance(statement, ast.Import):
                for alias in statement.names:
                    definitions[alias.asname or alias.name.partition(".")[0]] = (alias.name, "")
            elif isinstance(statement, ast.If):
                take(statement.body)

    take(ast.parse(Path(spec.origin).read_text("utf-8")).body)
    return definitions


def _arguments(module: str, definition: _Definition) -> Arguments | None:
    if isinstance(definition, ast.FunctionDef):
        return _of_function(module, definition, method=False)
    own = [one for one in definition.body if isinstance(one, ast.FunctionDef) and one.name in ("__init__", "__new__")]
    if own:
        return (
            _of_function(module, own[0], method=True)
            if own[0].name == "__init__" and not own[0].decorator_list
            else None
        )
    if len(definition.bases) != 1 or not isinstance(definition.bases[0], ast.Name):
        return None
    there, base = _home(module, definition.bases[0].id)
    if not isinstance(base, ast.ClassDef) or base.decorator_list:
        return None
    return _arguments(there, base)


def _of_function(module: str, function: ast.FunctionDef, method: bool) -> Arguments | None:
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    optional = {one.arg for one in positional[len(positional) - len(given.defaults) :]}
    optional |= {one.arg for one, value in zip(given.kwonlyargs, given.kw_defaults, strict=True) if value is not None}
    plain = [*positional[method:], *given.kwonlyargs]
    written = {one.arg: one.annotation for one in plain if one.annotation is not None}
    names = {node.id for one in written.values() for node in ast.walk(one) if isinstance(node, ast.Name)}
    try:
        types = _resolved(
            {name: ast.unparse(one) for name, one in written.items()}, {name: _type(module, name) for name in names}
        )
    except (NameError, TypeError, AttributeError):
        return None
    return Arguments(
        annotations={one.arg: types.get(one.arg, Any) for one in plain},
        required=frozenset(one.arg for one in plain if one.arg not in optional),
        takes_any=given.kwarg is not None,
    )


def _resolved(written: dict[str, str], names: dict[str, Any]) -> dict[str, Any]:
    """Annotations as types."""

    def holder() -> None:
        """Carry the annotations."""

    holder.__annotations__ = dict(written)
    return typing.get_type_hints(holder, {name: value for name, value in names.items() if value is not None})


def _type(module: str, name: str) -> Any:
    """What a name in an annotation stands for; None for a built-in name."""
    there, what = _home(module, name)
    if what is None:
        return None if there == module else _Module(there)
    if isinstance(what, tuple):
        source, member = what
        if source.partition(".")[0] in sys.stdlib_module_names:
            return getattr(import_module(source), member) if member else import_module(source)
        return type(member or source, (), {})  # a class of another package, as far as can be seen
    if isinstance(what, ast.ClassDef):
        is_data = any("dataclass" in ast.unparse(decorator) for decorator in what.decorator_list)
        return getattr(import_module(there), what.name) if is_data else type(what.name, (), {})
    if isinstance(what, ast.expr):
        names = {node.id for node in ast.walk(what) if isinstance(node, ast.Name)}
        return _resolved({"x": ast.unparse(what)}, {one: _type(there, one) for one in names})["x"]
    return Callable


def _home(module: str, name: str) -> tuple[str, Any]:
    """The module in which a name is defined and its definition there; an import from another package stays one."""
    what = _definitions(module).get(name)
    while isinstance(what, tuple) and what[0].startswith(_PACKAGE) and what[1]:
        package, member = what
        what = _definitions(package).get(member)
        module = package if what is not None else f"{package}.{member}"
    return module, what


class _Module:
    """A module of this package that an annotation names something of."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        """What the module has by that name, as a type."""
        return _type(self._name, name)
