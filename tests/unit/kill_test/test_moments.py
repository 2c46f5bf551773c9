"""When the kill test kills, and what it is asked for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from kill_test.moments import draw_moments
from kill_test.options import read_options

from blip2_train.errors import ConfigError


def test_twenty_moments_are_of_every_kind_and_come_from_the_seed() -> None:
    ends = [12, 23, 34, 45, 57, 68, 79, 90, 102, 113]
    moments = draw_moments(20, 0, 120, 5, ends)
    assert Counter(moment.kind for moment in moments) == {"checkpoint": 5, "epoch": 4, "start": 2, "anywhere": 9}
    assert moments == draw_moments(20, 0, 120, 5, ends) != draw_moments(20, 1, 120, 5, ends)
    assert [moment.step for moment in moments] == sorted(moment.step for moment in moments)
    written = [moment.step for moment in moments if moment.kind == "checkpoint"]
    ended = [moment.step for moment in moments if moment.kind == "epoch"]
    assert len(set(written)) == 5 and not any(step % 5 for step in written) and set(ended) < set(ends)


def test_a_run_without_such_moments_is_refused() -> None:
    with pytest.raises(ConfigError, match="more steps"):
        draw_moments(20, 0, 10, 5, [12])


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("kill=5", "did you mean 'kills'"),
        ("kills=many", "a whole number"),
        ("kills=0", "at least 1"),
        ("data.num_workers=2", "workers="),
        ("resume_from=last", "decides"),
        ("output={here}", "not empty"),
    ],
)
def test_settings_that_cannot_be_used(argument: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    with pytest.raises(ConfigError, match=words):
        read_options([argument.format(here=tmp_path)])


def test_other_settings_go_to_the_runs() -> None:
    options = read_options(["kills=3", "other_processes=2,4", "steps=40", "seed=1"])
    assert (options.kills, options.other_processes) == (3, (2, 4))
    assert options.settings[-2:] == ("steps=40", "seed=1") and "data.prepare.train_scenes=90" in options.settings
    assert read_options(["other_processes=none"]).other_processes == ()
    assert not any("train_scenes" in text for text in read_options(["data=shards", "data.source=x"]).settings)
