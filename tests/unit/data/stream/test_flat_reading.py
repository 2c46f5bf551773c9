"""Reading leaves nothing behind: memory and open files after many samples are those after few."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from processes import run_processes
from reading_work import COUNTED, counts_while_reading, evaluation, training

from blip2_train.data.shards.open_files import LIMIT


@pytest.mark.parametrize("reading", [training, evaluation])
@pytest.mark.slow
def test_memory_and_files_are_flat(reading: Callable[[Path], Callable[[int], object]], tmp_path: Path) -> None:
    """In a process of its own: threads that other tests have left allocate in theirs."""
    counts = run_processes((1,), counts_while_reading, tmp_path, reading, tmp_path)
    ((before, files_before), (after, files_after)) = counts[1][0]
    assert after - before < 150 * COUNTED, "150 bytes of each sample would be 129,000,000 x 150 = 19 GB"
    assert abs(files_after - files_before) <= 2 <= LIMIT
