"""`python scripts/notebooks.py --stage1 EXPORT --stage2 EXPORT`: run the documentation's notebooks on demo models."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from blip2_train.data.emoji_scenes.render import render
from blip2_train.data.emoji_scenes.split_scenes import drawn_scenes
from notebooks.making import notebook_of, run, write

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "scripts" / "notebooks" / "sources"
TARGET = ROOT / "docs" / "notebooks"
TEXTS = "a pencil on a red ground;a teapot on a yellow ground;two flying saucers on an orange ground"
GENERATIVE = ("instructed_generation",)
"""Those for a model of stage 2; the others are for one of stage 1."""


def sources() -> dict[str, Path]:
    """The pages that notebooks are made of, by name."""
    return {path.stem: path for path in sorted(SOURCES.glob("*.md"))}


def command() -> None:
    """Entry of the script."""
    parser = argparse.ArgumentParser(prog="notebooks.py", description=__doc__)
    parser.add_argument("--stage1", type=Path, required=True, help="export of demo_stage1")
    parser.add_argument("--stage2", type=Path, required=True, help="export of demo_stage2_opt_instruct")
    parser.add_argument("--scene", type=int, default=5, help="which image of the demo's test split (default 5)")
    parser.add_argument("--question", default="what color is the ground?")
    parser.add_argument("--texts", default=TEXTS, help="texts to match, joined by ;")
    parser.add_argument("names", nargs="*", help="which notebooks (default: all)")
    options = parser.parse_args()
    TARGET.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        *_, scene = drawn_scenes("test", options.scene + 1, 0)
        render(scene.scene).save(Path(folder) / "image.png")
        os.environ |= {"BLIP2_IMAGE": "image.png", "BLIP2_QUESTION": options.question, "BLIP2_TEXTS": options.texts}
        for name, path in sources().items():
            if options.names and name not in options.names:
                continue
            os.environ["BLIP2_MODEL"] = str((options.stage2 if name in GENERATIVE else options.stage1).resolve())
            write(run(notebook_of(path.read_text("utf-8")), Path(folder)), TARGET / f"{name}.ipynb")
            print(TARGET / f"{name}.ipynb")
