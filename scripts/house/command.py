"""`python scripts/house.py [option=value …]`: sizes, imports, a step's files and ruled-out words of a checkout."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from blip2_train.cli.terminal import run_command
from blip2_train.config.key_values import read_settings
from blip2_train.errors import ConfigError
from blip2_train.system.screen import echo
from house.imports import Sources, between, circles, upward
from house.sizes import sizes_below
from house.step import files_of_a_step
from house.words import Use, uses_below

ROOT = Path(__file__).parents[2]
KINDS = ("names", "docstrings", "comments", "strings", "pages", "yaml")
ABOUT = """\
Count what the design promises about the code: files and lines of each room, the files that a training step passes,
imports in circles or of higher layers, isinstance of models outside models/, and words that the glossary rules out.

usage: python scripts/house.py [option=value …]

  root=<folder>  the checkout that is counted (this one)
  step=<bool>    train three steps of the demo and list the files that the second passes (true)
  list=<bool>    name every use of a ruled-out word, every such import and isinstance (false)
  data=<folder>  where the demo's data set is, or is written for the step (data, in this checkout)
  --help         this text"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is counted."""

    root: str = str(ROOT)
    step: bool = True
    list: bool = False
    data: str = str(ROOT / "data")


def main(arguments: list[str]) -> None:
    """Count and print."""
    if {"--help", "-h"} & set(arguments):
        echo(ABOUT)
        return
    (options,) = read_settings(arguments, (Options,), "house.py")
    root = Path(options.root).resolve()
    if not (root / "blip2_train").is_dir():
        raise ConfigError(f"root={root} is no checkout: it has no folder blip2_train")
    _print_sizes(root)
    _print_imports(Sources(root), options.list)
    if options.step:
        files = files_of_a_step(root, Path(options.data).resolve())
        echo(f"\nfiles of blip2_train that a training step passes: {len(files)}")
        if options.list:
            echo("\n".join(f"  {name}" for name in files))
    _print_words(uses_below(root), options.list)


def _print_sizes(root: Path) -> None:
    echo(f"{'room':44}{'files':>7}{'lines':>8}{'median':>8}{'longest':>9}")
    for size in sizes_below(root):
        echo(f"{size.room:44}{size.files:7}{size.lines:8}{size.median:8.0f}{size.longest:9}")


def _print_imports(sources: Sources, every: bool) -> None:
    graph = sources.graph()
    groups = circles(graph)
    rooms = [group for depth in (2, 3) for group in circles(between(graph, depth))]
    higher = upward(graph, sources.layers())
    checks = sources.model_checks()
    lines = sum(1 for path in (sources.root / "blip2_train").rglob("*.py") for _ in path.open(encoding="utf-8"))
    echo(f"\nlines of Python in the wheel: {lines}")
    echo(f"circles of modules: {len(groups)}" + "".join(f"\n  {', '.join(group)}" for group in groups))
    echo(f"circles of rooms: {len(rooms)}" + "".join(f"\n  {', '.join(group)}" for group in rooms))
    echo(f"imports of a room that is not lower: {len(higher)}" + "".join(f"\n  {a} → {b}" for a, b in higher))
    echo(f"isinstance of models outside models/: {len(checks)}")
    if every:
        echo("\n".join(f"  {module}:{line}" for module, line in checks))


def _print_words(uses: list[Use], every: bool) -> None:
    counts = Counter((use.word, use.kind) for use in uses)
    words = [word for word, _ in Counter(use.word for use in uses).most_common()]
    echo(f"\n{'ruled-out word':20}" + "".join(f"{kind:>12}" for kind in KINDS))
    for word in words:
        echo(f"{word:20}" + "".join(f"{counts[word, kind]:12}" for kind in KINDS))
    totals = Counter(use.kind for use in uses)
    echo(f"{'in all':20}" + "".join(f"{totals[kind]:12}" for kind in KINDS))
    for top in ("blip2_train", "scripts", "tests"):
        inside = Counter(use.kind for use in uses if use.path.startswith(f"{top}/"))
        echo(f"{f'  in {top}':20}" + "".join(f"{inside[kind]:12}" for kind in KINDS))
    if every:
        echo("\n".join(f"{use.path}:{use.line}: {use.kind}: {use.word}: {use.text}" for use in uses))


def command() -> None:
    """Entry of the script."""
    sys.exit(run_command(main))
