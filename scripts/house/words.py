"""Finds words that are ruled out: in identifiers, docstrings, comments, messages, pages and configuration files."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from house.dialect import KEPT_NAMES, NAMES, OTHERS, PROSE, PROSE_PART, QUOTED, QUOTED_TEXTS, Rule

FOLDERS = ("blip2_train", "scripts", "tests", "configs", "docs", "findings", "run_scripts")
SUFFIXES = (".py", ".md", ".yaml", ".sh", ".toml")
_CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class Use(NamedTuple):
    """A word where it should not be."""

    kind: str
    """`names`, `docstrings`, `comments`, `strings`, `pages` or `yaml`."""
    word: str
    path: str
    """Below the root."""
    line: int
    text: str
    """The identifier, or what surrounds the word."""


def files_of(root: Path) -> list[Path]:
    """The files whose words are counted."""
    below = [path for folder in FOLDERS for path in sorted((root / folder).rglob("*")) if path.suffix in SUFFIXES]
    beside = [path for path in sorted(root.iterdir()) if path.suffix in SUFFIXES]
    paths = [path for path in (*beside, *below) if "__pycache__" not in path.parts]
    return [path for path in paths if not path.relative_to(root).as_posix().startswith(QUOTED)]


def uses_below(root: Path) -> list[Use]:
    """Every use in a checkout."""
    return [
        use for path in files_of(root) for use in uses_in(path.relative_to(root).as_posix(), path.read_text("utf-8"))
    ]


def uses_in(path: str, text: str) -> list[Use]:
    """Every use in a file."""
    if not path.endswith(".py"):
        kind = "yaml" if path.endswith((".yaml", ".toml")) else "pages"
        return [use for line, content in enumerate(text.splitlines(), 1) for use in _prose(kind, path, line, content)]
    tree = ast.parse(text)
    names = list(_names(path, tree))
    if not PROSE_PART.search(text):
        return names
    return [*names, *_strings(path, tree), *_comments(path, text)]


def ruled_out(name: str, path: str) -> Iterator[Rule]:
    """The rules that an identifier breaks."""
    if name.lstrip("_") in KEPT_NAMES:
        return
    parts = _CAPITAL.sub("_", OTHERS.sub("", name)).lower().split("_")
    joined = f"_{'_'.join(part for part in parts if part)}_"
    for rule in NAMES:
        if f"_{rule.word}_" in joined and (not rule.below or path.startswith(rule.below)):
            yield rule


def _names(path: str, tree: ast.AST) -> Iterator[Use]:
    for part in Path(path).with_suffix("").parts:
        yield from (Use("names", rule.word, path, 0, part) for rule in ruled_out(part, path))
    for node in ast.walk(tree):
        for name in _identifiers(node):
            line = getattr(node, "lineno", 0)
            yield from (Use("names", rule.word, path, line, name) for rule in ruled_out(name, path))


def _identifiers(node: ast.AST) -> list[str]:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return [name]
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.arg(arg=name):
            return [name]
        case ast.keyword(arg=str(name)) | ast.MatchAs(name=str(name)) | ast.ExceptHandler(name=str(name)):
            return [name]
        case ast.alias(name=name, asname=other):
            return [*name.split("."), *([other] if other else [])]
        case ast.ImportFrom(module=str(name)):
            return name.split(".")
        case ast.Global(names=names) | ast.Nonlocal(names=names):
            return names
    return []


def _strings(path: str, tree: ast.AST) -> Iterator[Use]:
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    documentation = {id(statement.value) for statement in statements if isinstance(statement.value, ast.Constant)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in KEPT_NAMES:
            kind = "docstrings" if id(node) in documentation else "strings"
            yield from _prose(kind, path, node.lineno, node.value)


def _comments(path: str, text: str) -> Iterator[Use]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield from _prose("comments", path, token.start[0], token.string)


def _prose(kind: str, path: str, line: int, text: str) -> Iterator[Use]:
    plain = re.sub(r"`[^`\n]*`", lambda quoted: "" if _is_kept(quoted.group()) else quoted.group(), text)
    plain = QUOTED_TEXTS.sub("", plain)
    for rule, pattern in PROSE:
        for match in pattern.finditer(plain):
            around = plain[max(0, match.start() - 30) : match.end() + 30].replace("\n", " ")
            yield Use(kind, rule.word, path, line + plain[: match.start()].count("\n"), around)


def _is_kept(quoted: str) -> bool:
    return bool(set(re.findall(r"\w+", quoted)) & KEPT_NAMES)
