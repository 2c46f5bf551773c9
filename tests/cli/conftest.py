"""Small models and images that the tests of commands share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from demo_exports import write_exports
from PIL import Image


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_exports(tmp_path_factory.mktemp("exports"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five images, the third of which is broken, at two depths, among files that are none."""
    draw = np.random.default_rng(0)
    (tmp_path / "images/below").mkdir(parents=True)
    for name in ("a.png", "b.JPG", "d.webp", "below/e.png"):
        Image.fromarray(draw.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(tmp_path / "images" / name)
    (tmp_path / "images/c.jpg").write_text("no image")
    (tmp_path / "images/notes.txt").write_text("no image, and not meant as one")
    (tmp_path / "images/._a.png").write_text("hidden")
    return tmp_path / "images"
