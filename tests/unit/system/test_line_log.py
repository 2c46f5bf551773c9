import logging
import re
import warnings
from pathlib import Path

import pytest
import transformers

from blip2_train.errors import ConfigError, RunStopped
from blip2_train.system.line_log import logged_lines


def test_lines_wait_for_the_folder_and_control_characters_are_escaped(tmp_path: Path) -> None:
    with logged_lines() as log:
        log.add("before")
        logging.getLogger("somebody").warning("a name: %s", "\x1b[2J")
        assert list(tmp_path.iterdir()) == []
        log.open(tmp_path)
        log.add("a table\nof two lines")
        logging.getLogger("somebody").warning("at once")
        lines = (tmp_path / "run.log").read_text().splitlines()
    assert [line.partition("  ")[2] for line in lines] == [
        "before", r"warning: a name: \x1b[2J", "a table", "", "warning: at once",
    ]  # fmt: skip
    assert lines[3] == "of two lines" and lines[0][:2] == "20" and lines[0][10] == "T"
    logging.getLogger("somebody").warning("afterwards")
    with logged_lines() as log:
        log.open(tmp_path)
        log.add("a run that goes on")
    again = (tmp_path / "run.log").read_text()
    assert again.count("\n") == 6 and "afterwards" not in again, "its log goes on, too"


def test_what_passes_nothing_on_and_warnings_and_the_error_are_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    library = logging.getLogger("a_library")
    monkeypatch.setattr(library, "propagate", False)
    before, error = warnings.showwarning, ConfigError("this does not go\x1b[2J")
    with pytest.raises(ConfigError), logged_lines() as log:
        log.open(tmp_path)
        library.warning("as transformers does")
        logging.getLogger("a_library.below").warning("once")
        transformers.utils.logging.get_logger("transformers.somewhere").warning("of transformers itself")
        warnings.warn("this is deprecated", FutureWarning, stacklevel=1)
        raise error
    lines = [line.partition("  ")[2] for line in (tmp_path / "run.log").read_text().splitlines()]
    assert lines.pop(2) == "warning: of transformers itself"
    assert lines[:2] == ["warning: as transformers does", "warning: once"]
    assert re.fullmatch(r"warning: this is deprecated \(FutureWarning, .*test_line_log.py, line \d+\)", lines[2])
    assert lines[3:] == [r"error: this does not go\x1b[2J"]
    assert warnings.showwarning is before and not library.handlers
    for other, text in ((MemoryError(), "MemoryError"), (KeyError("x"), "KeyError: 'x'")):
        with pytest.raises(type(other)), logged_lines() as log:
            log.open(tmp_path)
            raise other
        assert (tmp_path / "run.log").read_text().splitlines()[-1].endswith(f"  error: {text}")
    with pytest.raises(RunStopped), logged_lines() as log:
        log.open(tmp_path)
        raise RunStopped(2, 3)
    assert "stopped" not in (tmp_path / "run.log").read_text(), "the run has logged it"


def test_a_refused_run_leaves_no_log(tmp_path: Path) -> None:
    with logged_lines() as log:
        log.add("refused")
    assert list(tmp_path.iterdir()) == []


def test_a_line_that_cannot_be_written_ends_no_run(tmp_path: Path) -> None:
    with logged_lines() as log:
        log.open(tmp_path / "missing")
        log.add("lost")
    with logged_lines() as log:
        (tmp_path / "run.log").symlink_to("/dev/full")
        log.open(tmp_path)
        log.add("lost")


def test_a_call_whose_arguments_do_not_fit_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    record = logging.LogRecord("some.library", logging.WARNING, "library.py", 1, "wrong", (1,), None)
    with logged_lines() as log:
        log.emit(record)
    assert "not all arguments converted" in capsys.readouterr().err
