"""Verdicts on disk, and which samples have the file of an earlier one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from blip2_train.data.prepare.examination import VERDICT, Examined
from blip2_train.data.prepare.journal import CHUNK, Journal, find_duplicates
from blip2_train.types import RejectedSample


def test_duplicates_are_those_of_a_loop() -> None:
    draw = np.random.default_rng(0)
    verdicts = np.zeros(500, VERDICT)
    verdicts["good"] = draw.random(500) < 0.8
    verdicts["digest"] = draw.integers(0, 12, (500, 2))
    seen: dict[tuple[int, ...], int] = {}
    expected = []
    for index in np.flatnonzero(verdicts["good"]).tolist():
        first = seen.setdefault(tuple(verdicts["digest"][index].tolist()), index)
        expected += [(index, first)] if first != index else []
    indices, firsts = find_duplicates(verdicts)
    assert list(zip(indices.tolist(), firsts.tolist(), strict=True)) == expected and len(expected) > 100
    assert [part.size for part in find_duplicates(verdicts[:0])] == [0, 0]


def test_half_a_chunk_is_examined_again(tmp_path: Path) -> None:
    samples = 2 * CHUNK + 10
    for cut in (0, 1, VERDICT.itemsize * CHUNK - 1, VERDICT.itemsize * (CHUNK + 10)):
        folder = tmp_path / str(cut)
        folder.mkdir()
        journal = Journal(folder, samples)
        for chunk in journal.chunks():
            rejected = RejectedSample(source="a", key=str(chunk.start), reason="too small", detail="")
            journal.append(Examined(np.ones(len(chunk), VERDICT), ((chunk.start, rejected),)))
        assert journal.examined == samples and Journal(folder, samples).examined == samples
        with (folder / "verdicts.bin").open("r+b") as file:
            file.truncate(samples * VERDICT.itemsize - cut)
        again = Journal(folder, samples)
        kept = samples if cut == 0 else 2 * CHUNK if cut == 1 else CHUNK
        assert again.examined == kept == len(again.verdicts())
        assert [index for index, _ in again.rejected()] == list(range(0, kept, CHUNK))
        assert list(again.chunks())[:1] == ([] if cut == 0 else [range(kept, min(kept + CHUNK, samples))])
