import json
from pathlib import Path

import pytest

from blip2_train.data.rejections import RejectionLog
from blip2_train.errors import ShardError
from blip2_train.types import RejectedSample


def _bad(key: str, reason: str = "unreadable image") -> RejectedSample:
    return RejectedSample(source="00000.tar", key=key, reason=reason, detail="said\u2028so")


def test_counts_lists_and_knows_again(tmp_path: Path) -> None:
    log = RejectionLog(tmp_path / "run" / "rejected.jsonl")
    log.record([_bad("1"), _bad("2"), _bad("3", "empty caption")], samples=100)
    log.record([_bad("1")], samples=100)
    assert log.summary() == "2 unreadable image, 1 empty caption"
    lines = (tmp_path / "run" / "rejected.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == ["1", "2", "3"]


def test_a_resumed_run_knows_what_was_listed(tmp_path: Path) -> None:
    path = tmp_path / "rejected.jsonl"
    RejectionLog(path).record([_bad("1"), _bad("2")], samples=10)
    with path.open("a") as file:
        file.write('{"source": "cut off by a ki')
    log = RejectionLog(path)
    log.record([_bad("2"), _bad("3")], samples=10)
    assert log.counts == {"unreadable image": 3}
    assert [json.loads(line)["key"] for line in path.read_text().splitlines() if line.endswith("}")] == ["1", "2", "3"]


def test_too_large_a_share_stops_the_run_but_not_at_once() -> None:
    log = RejectionLog(None, max_share=0.1, minimum=5)
    for key in "abcd":
        log.record([_bad(key)], samples=1)
    with pytest.raises(ShardError, match=r"5 of 9 samples read were rejected .5 unreadable image.") as caught:
        log.record([_bad("e")], samples=0)
    assert "\n" not in str(caught.value) and "max_rejected_share" in str(caught.value)


def test_a_small_share_never_stops() -> None:
    log = RejectionLog(None, max_share=0.1, minimum=5)
    for index in range(100):
        log.record([_bad(str(index))], samples=9)
    assert log.counts["unreadable image"] == 100
