"""No line of a shell on a page is left alone: a test composes or parses it, or it is marked with what it needs.

`test_pages_commands.py` composes the settings of recipes, and parses predictions.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from blip2_train.cli.capfilt.filtering import CapFiltOptions
from blip2_train.cli.capfilt.filtering import Request as CapFiltRequest
from blip2_train.cli.compare import parser as compare_parser
from blip2_train.cli.evaluate import main as evaluate
from blip2_train.cli.features.storing import Request as FeatureRequest
from blip2_train.cli.make_shards import read_request
from blip2_train.cli.score import _parser as score_parser
from blip2_train.cli.train.command import main as train
from blip2_train.config.compose import compose, compose_evaluation, recipes
from blip2_train.config.key_values import read_settings, split_settings
from blip2_train.data.official.sets import SETS
from blip2_train.data.prepare.options import ShardOptions

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
LINES = sorted(
    {
        line.split(" #")[0].strip()
        for page in PAGES
        for block in re.findall(r"```bash\n(.*?)```", page.read_text("utf-8"), flags=re.DOTALL)
        for line in block.replace("\\\n", " ").splitlines()
        if line.split(" #")[0].strip()
    }
)


def _evaluation(words: list[str]) -> None:
    compose_evaluation([word for word in words if "=" in word])


def _features(words: list[str]) -> None:
    _evaluation(split_settings(words, FeatureRequest)[1])


def _prepared(words: list[str]) -> None:
    assert set(words) <= set(SETS)


def _sweep(words: list[str]) -> None:
    """The first of its runs; the launcher's settings are those of a sweep."""
    first = [re.sub(r"=([^,\[]+),.*", r"=\1", word) for word in words if "=" in word and not word.startswith("hydra")]
    assert compose(first).experiment in recipes()


def _own_recipe(words: list[str]) -> None:
    """A script of `run_scripts/` without settings: the recipe that it names."""
    text = (ROOT / words[0]).read_text("utf-8")
    assert set(re.findall(r'_train\.sh" (\w+)', text)) <= set(recipes())


Check = Callable[[list[str]], object]
CHECKED: dict[str, Check] = {
    r"python scripts/train\.py --list": train,
    r"python scripts/evaluate\.py --list": evaluate,
    r"(python scripts/evaluate\.py|bash run_scripts/evaluate\.sh) (?!--)": _evaluation,
    r"python scripts/features\.py (?='?evaluation=)": _features,
    r"python scripts/train\.py --multirun": _sweep,
    r"python scripts/score\.py (?!.*--help)": lambda words: score_parser().parse_args(words),
    r"python scripts/compare\.py": lambda words: compare_parser().parse_args(words),
    r"python scripts/make_shards\.py": read_request,
    r"python scripts/capfilt\.py": lambda words: read_settings(
        words, (CapFiltRequest, CapFiltOptions, ShardOptions), ""
    ),
    r"python scripts/prepare\.py": _prepared,
    r"bash (?=run_scripts/(pretrain|finetune)_\w+\.sh$)": _own_recipe,
}
"""How the arguments behind a beginning are checked here, without doing what they ask for."""
ELSEWHERE = {
    r".*scripts/.*experiment=": "test_pages_commands.py composes it, unless something of yours is to be filled in",
    r"python scripts/predict\.py": "test_pages_commands.py parses it",
    r"(cat|find|ls) .*\| python scripts/predict\.py": "test_pages_commands.py parses it",
    r"python scripts/score\.py \w+ --help": "test_score.py",
    r"python scripts/evaluate\.py --config-dir": "test_add_an_evaluation.py",
    r"python scripts/export\.py": "test_user_files.py and the tests of publishing",
    r"python scripts/convert_checkpoint\.py": "test_convert_checkpoint.py",
    r"python \w+\.py": "the worked examples' own tests",
    r"blip2-\w+|bash run_scripts/app\.sh": "test_packaging.py and the tests of each command",
}
"""Lines that another test runs or reads, and which."""
NEEDED = {
    r"bash run_scripts/demo\.sh": "half an hour",
    r"bash run_scripts/(ablations|study|benchmark|versions)\.sh": "minutes to hours; its parts have tests of their own",
    r"python scripts/(study|benchmark|costs|figures|house)\.py": "minutes to hours; its parts have tests of their own",
    r"python scripts/real_parts\.py": "a network, or the packages' wheels",
    r"bash run_scripts/gpu_visit\.sh": "a GPU, or minutes of a rehearsal",
    r"bash run_scripts/(fault_test|fuzz|kill_test|capfilt_demo|test)\.sh": "minutes",
    r"torchrun|sbatch": "several devices or a cluster",
    r"(export|source|cd|python -m venv|python3 -m venv|pip|mkdocs|jupyter)\b": "a terminal of one's own, or a network",
}  # fmt: skip
"""Lines that need what is not there when tests run."""


def check_of(line: str) -> tuple[Check, list[str]] | None:
    """The check of a line, and the words behind its beginning."""
    for start, check in CHECKED.items():
        if match := re.match(start, line):
            return check, shlex.split(re.sub(r"<[^>]*>", "mine", line[match.end() :]).replace("[,", "["))
    return None


def test_every_line_is_checked_or_marked() -> None:
    marked = [*CHECKED, *ELSEWHERE, *NEEDED]
    assert [line for line in LINES if not any(re.match(start, line) for start in marked)] == []


def test_every_mark_is_needed() -> None:
    """But for commands whose pages others write."""
    unused = [start for start in CHECKED if not any(re.match(start, line) for line in LINES)]
    assert unused == []


@pytest.mark.parametrize("line", [line for line in LINES if check_of(line) and "experiment=" not in line])
def test_what_follows_the_command_is_understood(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    known = check_of(line)
    assert known is not None
    check, words = known
    options = re.findall(r"--list", line)
    check([*options, *words])


@pytest.mark.parametrize("line", [line for line in LINES if "--multirun" in line])
def test_sweeps_are_understood(line: str) -> None:
    _sweep(shlex.split(line))


def test_nothing_is_left_out_of_a_command() -> None:
    """What is to be filled in stands in angle brackets; a command with dots cannot be copied."""
    assert [line for line in LINES if "…" in line] == []
