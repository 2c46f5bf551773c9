"""Options that messages and docstrings name exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "configs"
OPTIONS: dict[str, set[str]] = {}
for file in CONFIGS.rglob("*.yaml"):
    OPTIONS.setdefault(file.parent.relative_to(CONFIGS).as_posix(), set()).add(file.stem)
CHOICE = re.compile(rf"(?<![\w.])({'|'.join(sorted(OPTIONS, key=len, reverse=True))})=([a-z]\w*(?:\.\d\w*)?)")
FILES = [path for room in ("blip2_train", "scripts") for path in (ROOT / room).rglob("*.py")]
EXAMPLES = {"my_recipe", "nothing"}
"""Names of options that users would write themselves."""


def unknown_options(text: str) -> list[str]:
    strings = [n.value for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    choices = {match.groups() for string in strings for match in CHOICE.finditer(string)}
    return sorted(f"{group}={name}" for group, name in choices if name not in OPTIONS[group] | EXAMPLES)


def test_the_search_sees_an_option_that_does_not_exist() -> None:
    text = "f'pass collator=answer_decoder_only, {x} or trainer=cpu'\ncall(trainer=other)"
    assert unknown_options(text) == ["collator=answer_decoder_only"]


@pytest.mark.slow
def test_options_that_texts_name_exist() -> None:
    unknown = {path: unknown_options(path.read_text("utf-8")) for path in FILES}
    assert {path: options for path, options in unknown.items() if options} == {}
