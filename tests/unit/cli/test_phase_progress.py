"""Speed and time left that a long command tells where there is no terminal."""

import pytest

from blip2_train.cli import phase_progress
from blip2_train.cli.phase_progress import Bar


def test_what_came_before_the_first_results_does_not_count(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(phase_progress.time, "monotonic", lambda: clock[0])
    with phase_progress.PhaseProgress() as shown:
        for now, done in ((0.0, 100), (60.0, 120), (61.0, 140), (70.0, 320), (90.0, 720)):
            clock[0] = now
            shown("caption", done, 10_000)
            if now == 61:
                assert shown.rates["caption"] == pytest.approx(40 / 61)
    assert shown.rates["caption"] == 20.0
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "caption: 120 of 10,000 samples, 0.33 a second, 8:14:00 left",
        "caption: 720 of 10,000 samples, 20 a second, 0:07:44 left",
    ]


def test_a_command_in_a_pipe_says_now_and_then_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also through several phases, none of which takes as long; what hides its bar says nothing."""
    clock = [0.0]
    monkeypatch.setattr(phase_progress.time, "monotonic", lambda: clock[0])
    for hidden in (False, True):
        with phase_progress.PhaseProgress("batches", hidden=hidden) as shown:
            for _ in range(3):
                for phase in ("set: encoding", "set"):
                    clock[0] += 12
                    shown(phase, 1, 1)
    with Bar(None, hidden=False) as bar:
        clock[0] += 30
        bar.advance(4)
        bar.advance(4)
    lines = [line.partition(",")[0] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["set: 1 of 1 batches"] * 3 + ["predict: 4"]
