import logging
import warnings
from pathlib import Path

import pytest
from matplotlib import font_manager
from matplotlib.font_manager import FontEntry

from blip2_train.evaluation.figures import lettering
from blip2_train.evaluation.figures.lettering import Lettering, Word, plain_words


def test_lines_are_no_wider_than_they_may_be() -> None:
    letters = Lettering(["a long caption"])
    words = plain_words("two red foxes above a fire engine " * 4 + "x" * 200)
    lines = letters.lines(words, 150, 10)
    assert " ".join(word.text for line in lines for _, word in line).replace(" ", "") == "".join(w.text for w in words)
    for line in lines:
        start, last = line[-1]
        assert start + letters.width(last.text, 10) <= 150.01 and line[0][0] == 0
    assert len(lines) > 5


def test_letters_that_no_font_has_are_named_once_and_never_drawn_as_boxes(caplog: pytest.LogCaptureFixture) -> None:
    unknown = "\u0378"  # is no letter: no font has it
    with caplog.at_level(logging.WARNING):
        letters = Lettering([f"a {unknown}{unknown} b"])
        Lettering([f"again {unknown}"])
    assert letters.shown("a \u0378\u0378 b") == "a (no font) b"
    (line,) = [text for text in caplog.messages if "\u0378" in text]
    assert "install one" in line


def test_a_font_of_this_machine_is_taken_for_letters_that_the_first_one_lacks(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Which fonts a machine has differs; here the first one is one of mathematical signs alone, without letters."""
    monkeypatch.setattr(lettering, "_FIRST", "STIXSizeOneSym")
    letters = Lettering(["cat"])
    assert len(letters.families) == 2 and letters.shown("cat") == "cat" and caplog.messages == []
    bold = letters.lines([Word(text="cat", bold=True)], 100, 10)
    assert not bold[0][0][1].bold, "the other font may have no bold letters"


def test_fonts_that_cannot_be_drawn_with_are_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    entries = [FontEntry(str(tmp_path / name), "Broken", "normal", "normal", 400) for name in ("broken.ttf", "gone")]
    Lettering(["a"])  # matplotlib finds its own font by the list, and keeps what it found
    monkeypatch.setattr(font_manager.fontManager, "ttflist", entries)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # not what old matplotlib uses of new packages
        assert Lettering(["猫"]).families == ["DejaVu Sans"]
