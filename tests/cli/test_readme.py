"""What the README tells a newcomer to type is understood."""

import re
import shlex
from pathlib import Path

import pytest
from benchmark.options import split_options

from blip2_train.config.compose import compose, recipes

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("  #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    for line in block.splitlines()
    if "scripts/" in line
]


@pytest.mark.parametrize("command", [c for c in COMMANDS if "experiment=" in c and "…" not in c])
def test_settings_of_every_command_compose(command: str) -> None:
    words = shlex.split(command)
    script = next(index for index, word in enumerate(words) if word.startswith("scripts/"))
    settings = words[script + 1 :]
    if words[script] == "scripts/benchmark.py":
        _, settings = split_options(settings)
    if words[script] == "scripts/describe.py":  # it needs no weights to start from
        settings.append("init_from=null")
    assert compose([s for s in settings if not s.startswith("--")]).experiment in recipes()


def test_every_script_it_names_is_there() -> None:
    named = set(re.findall(r"(?:run_scripts|scripts)/\w+\.(?:sh|py)", README))
    assert {"run_scripts/pretrain_stage1.sh", "run_scripts/test.sh", "scripts/train.py"} <= named
    assert all((ROOT / name).is_file() for name in named)


def test_every_recipe_is_in_its_table() -> None:
    rows = re.findall(r"^\| (`[\w.]+`(?:, `[\w.]+`)*) \|", README, flags=re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`([\w.]+)`", row)} >= set(recipes())
    assert len(README.splitlines()) <= 250
