"""A reader that the system ends is one line with advice, whoever reads."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import torch.utils.data._utils

from blip2_train.data.stream.loader import BatchLoader
from blip2_train.errors import TrainingError


class Falling:
    """Numbers; who reads the sixth sends itself a signal, or fails with a text."""

    def __init__(self, fall: int | str) -> None:
        self.fall = fall

    def __len__(self) -> int:
        return 20

    def __getitem__(self, signal_number: int) -> int:
        if signal_number == 6 and isinstance(self.fall, int):
            os.kill(os.getpid(), self.fall)
        elif signal_number == 6:
            raise RuntimeError(self.fall)
        return signal_number


REASONS: dict[Any, str] = {
    signal.SIGKILL: "was killed (SIGKILL), mostly by the system for want of memory",
    signal.SIGSEGV: "crashed (SIGSEGV)",
    signal.SIGBUS: "found no room in shared memory",
    "unable to write to file </torch_1_2_3>: No space left on device (28)": "found no room in shared memory",
}


@pytest.mark.slow
@pytest.mark.parametrize(("fall", "reason"), REASONS.items(), ids=["kill", "segv", "bus", "full"])
def test_a_reader_that_is_killed_is_one_line(fall: Any, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.2)
    loader = BatchLoader(Falling(fall if isinstance(fall, str) else int(fall)), num_workers=2, batch_size=2)
    read: list[Any] = []
    with pytest.raises(TrainingError) as caught:
        read.extend(iter(loader))
    line = str(caught.value)
    assert reason in line and "\n" not in line and "lower data.num_workers" in line, line
    assert "one of 2 of this process" in line and "/dev/shm" in line and "resume_from=last" in line
    assert len(read) <= 4, "what comes after the lost batch is not handed out"


@pytest.mark.slow
def test_other_errors_of_a_reader_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="nothing known"):
        list(iter(BatchLoader(Falling("nothing known"), num_workers=1, batch_size=2)))
