"""The documentation is built without a warning, every page is in its menu, and its figures are those of the code."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from figures.masks import QUERIES, REAL, TOKENS, masks
from figures.scene import scene_jpg
from PIL import Image

ROOT = Path(__file__).parents[2]


def test_every_page_is_in_the_menu() -> None:
    menu = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]
    listed = [page for section in menu for pages in section.values() for page in pages]
    assert sorted(listed) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


@pytest.mark.slow
def test_it_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    home, api = ((tmp_path / "site" / name).read_text("utf-8") for name in ("index.html", "api/index.html"))
    assert "Words used on these pages" in home and "Score each of N images with each of M texts" in api
    commands = (tmp_path / "site" / "start" / "index.html").read_text("utf-8")
    assert 'class="language-bash' in commands and "pages.css" in commands, "long commands wrap"
    faults = (tmp_path / "site" / "when-something-breaks" / "index.html").read_text("utf-8")
    assert faults.count("<tr>") > 100, "the table of faults is part of the page"
    examples = re.findall(r'<details class="example".*?</details>', api, re.DOTALL)
    assert examples and all("<pre>" in example for example in examples), "examples are code, not running text"
    fonts = [page for page in (home, api) if "fonts.googleapis" in page]
    assert fonts == [], "nothing is fetched from elsewhere"


def test_masks_of_the_figure() -> None:
    apart, together, causal = masks()
    assert not apart[:QUERIES, QUERIES:].any() and not apart[QUERIES:, :QUERIES].any()
    assert together[:, : QUERIES + REAL].all() and not causal[:QUERIES, QUERIES:].any()
    assert torch.equal(causal[QUERIES:, QUERIES : QUERIES + REAL], torch.ones(TOKENS, REAL).tril().bool())
    assert not torch.stack([apart, together, causal])[:, :, QUERIES + REAL :].any(), "padding is never seen"


def test_the_scene_of_the_first_page() -> None:
    drawn, committed = (
        np.asarray(Image.open(file).convert("RGB"), dtype=float)
        for file in (io.BytesIO(scene_jpg()), ROOT / "docs" / "figures" / "scene.jpg")
    )
    assert drawn.shape == (96, 96, 3) and abs(drawn - committed).mean() < 1
