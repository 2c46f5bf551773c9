"""Speed and time left that a long command tells where there is no terminal."""

import pytest

from blip2_train.cli import preparation_progress


def test_what_came_before_the_first_results_does_not_count(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(preparation_progress.time, "monotonic", lambda: clock[0])
    with preparation_progress.PreparationProgress() as shown:
        for now, done in ((0.0, 100), (60.0, 120), (61.0, 140), (70.0, 320), (90.0, 720)):
            clock[0] = now
            shown("caption", done, 10_000)
            if now == 61:
                assert shown.rates["caption"] == pytest.approx(40 / 61)
    assert shown.rates["caption"] == 20.0
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "caption: 120 of 10,000 samples, 0.3 a second, 8:14:00 left",
        "caption: 720 of 10,000 samples, 20.0 a second, 0:07:44 left",
    ]
