"""A part of what `run_scripts/fuzz.sh` does: files that are wrong are read or refused, and anything else is told."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from fuzz import running
from fuzz.command import main
from fuzz.mutation import mutated
from fuzz.readers import Reader
from fuzz.running import Fuzzer, Outcome
from warm_process import WarmProcess

from blip2_train.errors import ShardError

COMMAND = str(Path(__file__).parents[1] / "fuzz" / "command.py")


@pytest.mark.slow
def test_some_hundred_inputs() -> None:
    process = WarmProcess([COMMAND, "inputs=300", "seed=7", "processes=1"])
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, output + errors
    assert "300 of 300 inputs as they have to be, 0 failures" in output


def test_the_same_seed_makes_the_same_files() -> None:
    content = b'{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": []}'
    made = [mutated(content, Random(f"3:{n}"), True) for n in range(200)]
    assert made == [mutated(content, Random(f"3:{n}"), True) for n in range(200)]
    assert len(set(made)) > 150 and content not in made[:20]


@pytest.fixture
def fuzzer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Gives a reader of ones own some inputs."""

    def fuzz(read: Callable[[Path, Path], Any]) -> Outcome:
        reader = Reader(name="mine", share=1, files=[("a.json", b'{"a": [1, 2]}')], read=read)
        monkeypatch.setattr(running, "make_readers", lambda folder: [reader])
        monkeypatch.setattr(running, "LONGEST", 0.2)
        monkeypatch.setattr(running, "_bound_memory", lambda: None)
        monkeypatch.setattr(running.logging, "disable", lambda level: None)
        (tmp_path / "fuzz").mkdir()
        return Fuzzer(tmp_path / "fuzz", 0).run(range(3))

    return fuzz


def refuse(folder: Path, path: Path) -> None:
    raise ShardError(f"{path} is no file")


def refuse_in_silence() -> None:
    raise ShardError("")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("read", "words"),
    [
        (lambda folder, path: {}["a"], "KeyError"),
        (lambda folder, path: time.sleep(1), "Hang"),
        (lambda folder, path: print("what is read"), "it printed"),
        (lambda folder, path: sys.stderr.write("a warning"), "it printed"),
        (lambda folder, path: (folder.parent / "beside").write_text(""), "written beside its folder"),
        (lambda folder, path: (folder.parents[2] / "far").write_text(""), "written outside"),
        (lambda folder, path: refuse_in_silence(), "a message of 0"),
    ],
)
def test_what_is_neither_read_nor_refused_is_reported(
    read: Callable[[Path, Path], Any], words: str, fuzzer: Callable[..., Outcome]
) -> None:
    outcome = fuzzer(read)
    assert outcome.failures and words in outcome.failures[-1][2], outcome


def test_what_is_refused_in_a_line_is_right(fuzzer: Callable[..., Outcome]) -> None:
    outcome = fuzzer(refuse)
    assert outcome.refused == {"mine": 3} and not outcome.failures and not outcome.read


def test_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0 and main(["inputs=many"]) == 2 and main(["sed=1"]) == 2
    assert capsys.readouterr().err.count("error: ") == 2
