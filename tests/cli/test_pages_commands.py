"""What the README and the pages of the documentation tell a reader to type is understood."""

import re
import shlex
from pathlib import Path

import pytest
from benchmark.options import split_options
from caption_files import as_csv, rows, write_images

from blip2_train.cli.check import CheckOptions
from blip2_train.cli.compare import parser as compare_parser
from blip2_train.cli.export import parser as export_parser
from blip2_train.cli.features.storing import Request
from blip2_train.cli.predict.options import parser as predict_parser
from blip2_train.config.compose import compose, recipes
from blip2_train.config.key_values import split_settings

ROOT = Path(__file__).parents[2]
PAGES = {path: path.read_text("utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
COMMANDS = sorted(
    {
        line.split(" #")[0].strip()
        for text in PAGES.values()
        for block in re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
        for line in block.replace("\\\n", " ").splitlines()
        if "scripts/" in line
    }
)
TO_BE_COMPLETED = ("…", "<", "my_", "--multirun")


@pytest.fixture(scope="module")
def own_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages call `mine.csv`."""
    folder = tmp_path_factory.mktemp("own")
    write_images(folder, 20)
    return as_csv(folder / "mine", rows(20))


@pytest.fixture(scope="module")
def flickr8k(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages call `flickr8k/`: a folder in its layout, of today's copies and of the original."""
    folder = tmp_path_factory.mktemp("flickr8k")
    for name in ("Images", "Flicker8k_Dataset"):
        write_images(folder / name, 20)
    lines = [(image, n % 5, caption) for n, (image, caption, _) in enumerate(rows(20, captions=5))]
    (folder / "captions.txt").write_text(
        "image,caption\n" + "".join(f'{image},"{text} ."\n' for image, _, text in lines)
    )
    (folder / "Flickr8k.token.txt").write_text("".join(f"{image}#{n}\t{text} .\n" for image, n, text in lines))
    return folder


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if "experiment=" in c and not any(mark in c for mark in TO_BE_COMPLETED)]
)
def test_settings_of_every_command_compose(command: str, own_file: Path, flickr8k: Path) -> None:
    words = shlex.split(command.replace("mine.csv", str(own_file)).replace("flickr8k/", f"{flickr8k}/"))
    script = next(index for index, word in enumerate(words) if "scripts/" in word)
    settings = [word for word in words[script + 1 :] if "=" in word and not word.startswith("--")]
    if words[script] == "scripts/benchmark.py":
        _, settings = split_options(settings)
    if words[script] == "scripts/features.py":
        _, settings = split_settings(settings, Request)
    if words[script] == "scripts/check.py":
        _, settings = split_settings(settings, CheckOptions)
    if words[script] == "scripts/describe.py":  # it needs no weights to start from
        settings.append("init_from=null")
    earlier = [setting for setting in settings if setting.startswith("init_from=last:")]  # nothing was trained here
    settings = ["init_from=null" if setting in earlier else setting for setting in settings]
    assert compose(settings).experiment in recipes()


PARSERS = {"predict.py": predict_parser, "compare.py": compare_parser, "export.py": export_parser}


@pytest.mark.parametrize("command", [c for c in COMMANDS if any(f"scripts/{name}" in c for name in PARSERS)])
def test_options_of_every_command_are_known(command: str) -> None:
    python, script, *arguments = shlex.split(command.split(" | ")[-1])
    assert python == "python"
    PARSERS[script.removeprefix("scripts/")]().parse_args(arguments)  # a mistake raises ConfigError


def test_every_script_they_name_is_there() -> None:
    named = set(re.findall(r"(?:run_scripts|scripts)/[\w/]+\.(?:sh|py)", "\n".join(PAGES.values())))
    assert {"run_scripts/pretrain_stage1.sh", "run_scripts/test.sh", "scripts/train.py"} <= named
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_every_recipe_is_in_the_table() -> None:
    rows = re.findall(r"^\| (`[\w.]+`(?:, `[\w.]+`)*) \|", PAGES[ROOT / "docs/recipes.md"], flags=re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`([\w.]+)`", row)} >= set(recipes())


def test_the_first_page_is_short() -> None:
    assert len(PAGES[ROOT / "README.md"].splitlines()) <= 150
