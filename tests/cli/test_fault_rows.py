"""A part of what `run_scripts/fault_test.sh` does: rows of each kind hold, and a row that does not is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_test.command import main
from fault_test.desk import Finished
from fault_test.rows import load_rows
from fault_test.running import run_row
from fault_test.table import Row
from fault_test.world import World, make_world

PART = (
    "a text for a number",
    "a recipe that is no YAML",
    "a manifest too deep to be read",
    "a Paddle file that would run code",
    "a checkpoint is cut",
    "a GGUF file as a language model",
    "a vocabulary without special tokens",
    "captions too deep to be read",
    "predictions for a part",
    "files that are no tar files",
    "an image whose header asks for 10,000 megapixels",
    "shards go to a read-only folder",
    "a training is preempted (SIGUSR1)",
    "storage that nobody runs",
)
ROWS = {row.name: row for row in load_rows()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("faults") / "world")


@pytest.mark.slow
@pytest.mark.parametrize("name", PART)
def test_a_row_holds(name: str, world: World) -> None:
    result = run_row(ROWS[name], world)
    assert result.held, result.outcome


def test_there_are_enough_rows_each_with_a_name_of_its_own() -> None:
    assert len(load_rows()) == len(ROWS) >= 140
    assert {row.group for row in ROWS.values()} >= {"settings", "models", "shards", "signals", "days", "remote"}


def world_of_a_file(folder: Path) -> World:
    (folder / "world").mkdir()
    (folder / "world" / "file").write_text("as it was")
    return World(**dict.fromkeys(World.__dataclass_fields__, folder / "world"))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda desk: desk.one_line(Finished(2, "", "error: a\nerror: b\n", 1), "a"), "2 lines of error"),
        (lambda desk: desk.one_line(Finished(0, "", "error: a\n", 1), "a"), "exit code 0 instead of 2"),
        (lambda desk: desk.one_line(Finished(2, "", "Traceback\nerror: a\n", 1), "a"), "a traceback"),
        (lambda desk: desk.one_line(Finished(2, "", "error: a\n", 1), "b"), "lacks 'b'"),
        (lambda desk: desk.one_line(Finished(2, "", "error: a\x1b[2J\n", 1), "a"), "control character"),
        (lambda desk: desk.one_line(Finished(2, "", f"error: a{'x' * 999}\n", 1), "a"), "characters: error"),
        (lambda desk: next(iter(desk.kept)).unlink(), "lost or changed"),
        (lambda desk: (desk.world.folder / "file").write_text("other than before"), "changed what is not its own"),
        (lambda desk: 1 / 0, "the row itself failed: ZeroDivisionError"),
    ],
)
def test_a_row_that_does_not_hold_is_reported(spoil: object, words: str, tmp_path: Path) -> None:
    row = Row(group="g", name="n", action=spoil)  # type: ignore[arg-type]
    result = run_row(row, world_of_a_file(tmp_path))
    assert not result.held and words in result.outcome


def test_the_options_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0 and "one row" not in capsys.readouterr().out
    assert main(["rows=many"]) == 2 and main(["row=1"]) == 2
    assert capsys.readouterr().err.count("error: ") == 2
