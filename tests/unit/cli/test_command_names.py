"""Commands are named as they are called: by scripts in a checkout, by their own names where they are installed."""

from __future__ import annotations

import pkgutil
import re
import tomllib
from pathlib import Path

import pytest
from pytest import CaptureFixture, MonkeyPatch

import blip2_train
from blip2_train.cli.command_names import INSTALLED, as_called
from blip2_train.cli.terminal import run_command

PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text("utf-8"))["project"]
ENTRIES: dict[str, str] = PROJECT["scripts"]


def test_every_installed_command_has_its_script(root: Path) -> None:
    assert set(INSTALLED.values()) == set(ENTRIES)
    assert all((root / "scripts" / f"{name}.py").is_file() for name in INSTALLED)


@pytest.mark.parametrize("name", ENTRIES)
def test_help_names_the_command_as_it_was_called(
    name: str, monkeypatch: MonkeyPatch, capsys: CaptureFixture[str]
) -> None:
    main = pkgutil.resolve_name(ENTRIES[name].partition(":")[0]).main

    def shown() -> str:
        try:
            assert run_command(main, ["--help"]) == 0
        except SystemExit as ended:  # of argparse
            assert ended.code == 0
        return capsys.readouterr().out

    monkeypatch.setattr("sys.argv", ["scripts/x.py"])
    scripts = "|".join(INSTALLED)
    in_checkout = shown()
    assert re.search(rf"\b({scripts})\.py", in_checkout) and not any(entry in in_checkout for entry in ENTRIES)
    monkeypatch.setattr("sys.argv", [f"/somewhere/bin/{name}"])
    assert name in shown() and not re.search(rf"\b({scripts})\.py", shown())


def test_a_mistake_names_the_installed_command(monkeypatch: MonkeyPatch, capsys: CaptureFixture[str]) -> None:
    from blip2_train.cli.predict.command import main

    monkeypatch.setattr("sys.argv", ["blip2-predict"])
    assert run_command(main, ["caption"]) == 2
    assert "see blip2-predict caption --help" in capsys.readouterr().err


def test_paths_of_users_and_other_scripts_stay(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["blip2-train"])
    text = "/home/x/train.py my-train.py scripts/benchmark.py: python scripts/train.py, torchrun -n 2 scripts/train.py"
    names = "/home/x/train.py my-train.py scripts/benchmark.py: blip2-train, torchrun -n 2 --no-python blip2-train"
    assert as_called(text) == names
    monkeypatch.setattr("sys.argv", ["scripts/train.py"])
    assert as_called(text) == text


@pytest.mark.parametrize(("started", "line"), [("bin/blip2-score", "blip2-score"), ("scripts/score.py", "blip2_train")])
def test_version(started: str, line: str, monkeypatch: MonkeyPatch, capsys: CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", [started])
    assert run_command(lambda _: pytest.fail("it does something"), ["--version"]) == 0
    assert capsys.readouterr().out == f"{line} {blip2_train.__version__}\n"


def test_the_package_lists_its_interface() -> None:
    listed = dir(blip2_train)
    assert listed == sorted(blip2_train.__all__) and "load_pretrained" in listed and "annotations" not in listed
    assert all(getattr(blip2_train, name) is not None for name in listed)
