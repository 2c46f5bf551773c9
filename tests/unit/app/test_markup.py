"""Results are shown as text, whatever they hold; what goes wrong is one line."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from blip2_train.app.browsing import DataPage
from blip2_train.app.markup import MOST_ROWS, bars, data_report, generated, noted, refused, table
from blip2_train.app.matching import TextScore
from blip2_train.app.refusals import refusal
from blip2_train.data.batches.unknown_tokens import UnknownTokens
from blip2_train.errors import ConfigError
from blip2_train.types import RejectedSample

HOSTILE = "<img src=x onerror=alert(1)> ${alert(1)} \u202e"


def page(rejected: int) -> DataPage:
    broken = RejectedSample(source="a.tar", key=HOSTILE, reason="unreadable image", detail="no JPEG")
    return DataPage(
        total=1000,
        looked_at=200,
        samples=[],
        rejected=(broken,) * rejected,
        left_out=(),
        captions=150,
        unknown=UnknownTokens(unknown=1, tokens=4, example=HOSTILE),
    )


def test_every_text_is_escaped() -> None:
    shown = [refused(HOSTILE), noted(HOSTILE), generated([HOSTILE]), bars([TextScore(HOSTILE, 0.1, 0.9)])]
    shown += [table((HOSTILE,), [(HOSTILE,)]), data_report(page(1))]
    assert all("<img" not in one and "&lt;img src=x" in one for one in shown)


def test_bars_have_the_length_of_the_scores() -> None:
    shown = bars([TextScore("a", 0.25, 0.125), TextScore("b", -0.5, 1.0)])
    assert "width: 12.5%" in shown and "12.5 %" in shown and "width: 25.0%" in shown and "0.250" in shown
    assert "width: 100.0%" in shown and "width: 0.0%" in shown and "-0.500" in shown


def test_what_was_rejected_is_counted_and_listed() -> None:
    report = data_report(page(MOST_ROWS + 3))
    assert "1,000 samples; looked at 200 of them, with 150 captions" in report
    assert f"rejected: {MOST_ROWS + 3} unreadable image" in report and "and 3 more" in report
    assert "25.0 % of 4 tokens are unknown" in report
    assert report.count("<tr>") == MOST_ROWS + 1
    assert "nothing was rejected" in data_report(page(0))


def test_an_error_is_one_line_and_a_fault_of_the_app_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert refusal(ConfigError("no\nsuch \x1b[2J thing")) == r"no\nsuch \x1b[2J thing"
    with pytest.raises(OSError) as missing:
        Path("/no/such/file").read_bytes()
    assert refusal(missing.value) == "/no/such/file: No such file or directory"
    assert caplog.text == ""
    with caplog.at_level(logging.ERROR):
        line = refusal(KeyError("x"))
    assert line == "this is a fault of the app (KeyError: 'x'); the terminal shows where"
    assert "a call of the page failed" in caplog.text
