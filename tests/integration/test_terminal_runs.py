"""A run on a terminal: few lines before it, no warning breaks its bar, and nothing is cut."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
from shard_files import write_shards, write_tokenizer
from terminal_screen import terminal
from tiny_run import SAVE, STEPS, arguments
from warning_callback import LOGGED, WARNED

from blip2_train.cli.terminal import run_command
from blip2_train.cli.train.command import main

WARNS = "callbacks.warns={_target_: warning_callback.Warns}"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("terminal")
    write_shards(folder / "shards", [9, 4, 13])
    write_tokenizer(folder / "tokenizer")
    return folder / "outputs"


@pytest.mark.parametrize("columns", [70, 120])
def test_a_run_on_a_terminal(outputs: Path, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(columns))  # rich asks the first three files for their size, which are no terminal
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    run = outputs / str(columns)
    with terminal(columns) as (stream, screen):
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", stream)
        logger = logging.getLogger("blip2_train.noise")
        monkeypatch.setattr(logger, "handlers", [logging.StreamHandler()])
        monkeypatch.setattr(logger, "propagate", False)
        assert run_command(main, [*arguments(outputs), "data.num_workers=0", WARNS, f"paths.run_dir={run}"]) == 0
        lines = screen.lines()
    text = "\n".join(lines)
    first = next(number for number, line in enumerate(lines) if LOGGED[:30] in line)
    words = {word for line in lines[:first] for word in line.split()}
    assert {"verbose=true", "parameters,", "frozen:", "gradients", "optimiser"} <= words, "none is broken"
    assert first <= 15 + len(str(run)) * 4 // columns, text  # the long paths of a test add some
    whole = "".join(lines).replace(" ", "")  # a terminal breaks lines anywhere
    assert whole.count(LOGGED.replace(" ", "")) == whole.count(WARNED.replace(" ", "")) == STEPS, text
    assert sum(f"step {n}/{STEPS}" in line for line in lines for n in range(STEPS + 1) if line.startswith("step")) == 1
    assert f"step {STEPS}/{STEPS}" in text and "samples/s" in text
    for label in ("ITC", "ITM", "ITG"):
        assert any(f"{label} " in line and "(chance " in line for line in lines)
    table = lines[lines.index("results") :]
    (itc,) = [line for line in table if line.startswith("ITC, contrast")]
    assert sum(word.replace(".", "").isdigit() for word in itc.split()) == 4
    assert max(map(len, lines)) <= columns
    log = [line.partition("  ")[2] for line in (run / "run.log").read_text("utf-8").splitlines()]
    steps = [line for line in log if line.startswith("step ") and f"/{STEPS}  ITC " in line]
    assert [int(line.removeprefix("step ").partition("/")[0]) for line in steps] == [*range(1, STEPS + 1)]
    assert all("(chance " in line and line.endswith(" left") and "samples/s" in line for line in steps)
    assert [line for line in log if line.endswith(" is written")] == [
        f"step {step}: step_{step:07d}.ckpt is written" for step in range(SAVE, STEPS + 1, SAVE)
    ]
    (held_out,) = [line for line in log if line.startswith(f"held-out, step {STEPS}  ITC ")]
    assert "image→text R@1" in held_out and "  ITM accuracy on matches 0 % (normal at first)  " in held_out
    assert sum(line.startswith(f"warning: {LOGGED}") for line in log) == STEPS, "of a logger that passes nothing on"
    assert (run / "retrieval.png").read_bytes().startswith(b"\x89PNG") and "retrieval.png" in whole


def test_values_of_an_earlier_step_say_so(outputs: Path) -> None:
    few = ["data.num_workers=0", "steps=4", "log_every=4", "validate_every=null", f"paths.run_dir={outputs / 'few'}"]
    assert run_command(main, [*arguments(outputs), *few]) == 0
    log = (outputs / "few" / "run.log").read_text("utf-8")
    shown = [line.partition("  ")[2] for line in log.splitlines() if "/4  ITC " in line]
    assert [line.split("  ")[0] for line in shown] == [f"step {step}/4" for step in (1, 2, 3, 4)]
    assert [line.split("  ")[4] for line in shown[1:3]] == ["(of step 1)"] * 2
    assert not any("(of step" in line for line in (shown[0], shown[3]))


def test_details_are_shown_to_whom_they_are_of_use(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quiet, loud = [*arguments(outputs), "data.num_workers=0", "steps=2", "validate_every=null"], "verbose=true"
    shown = {}
    for setting in ("verbose=false", loud):
        run = outputs / setting.replace("=", "_")
        assert run_command(main, [*quiet, setting, f"paths.run_dir={run}"]) == 0
        shown[setting] = capsys.readouterr().out
        log = (run / "run.log").read_text("utf-8")
        assert "optimiser group 'no decay'" in log and "1 processes x 1 micro-batches x 4" in log and "results" in log
    assert "optimiser group" not in shown["verbose=false"] and "optimiser group 'no decay'" in shown[loud]
    before = shown["verbose=false"].split("step 1/2")[0].splitlines()
    assert 4 <= len(before) <= 15, before
