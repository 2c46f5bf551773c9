"""What `inspect_samples` and `copies` find is what was put there."""

from __future__ import annotations

from pathlib import Path

from caption_files import as_csv, rows, write_images

from blip2_train.data.sources.config import SourceConfig, open_source
from blip2_train.data.stream.inspection import copies, inspect_samples, leaks


def test_broken_samples_and_copies_are_detected(tmp_path: Path) -> None:
    write_images(tmp_path, 6)
    (tmp_path / "p04.jpg").write_bytes((tmp_path / "p01.jpg").read_bytes())
    (tmp_path / "p02.jpg").write_bytes((tmp_path / "p02.jpg").read_bytes()[:300])
    (tmp_path / "p03.jpg").unlink()
    content = [(path, " . " if path == "p05.jpg" else text, index) for path, text, index in rows(6)]
    source = open_source(SourceConfig(path=str(as_csv(tmp_path / "captions", content))))
    training = inspect_samples(source, "training", 4, [0, 1, 2, 3])
    validation = inspect_samples(source, "validation", 2, [4, 5])
    assert (training.samples, training.looked_at, len(training.images)) == (4, 4, 2)
    assert [(b.reason, b.detail.split(":")[0]) for b in training.broken] == [
        ("unreadable image", "line 4"),
        ("missing image", "line 5"),
    ]
    assert [b.reason for b in validation.broken] == ["empty caption"]
    (group,) = copies([training, validation])
    assert [image.where for _, image in group] == [f"{tmp_path}/captions.csv, line {n}" for n in (3, 6)]
    assert leaks(group)
    (same,) = copies([inspect_samples(source, "training", 6, [1, 4])])
    assert not leaks(same)
    assert copies([inspect_samples(source, "training", 6, [0, 0])]) == []  # one image, seen twice
