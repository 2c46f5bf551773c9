"""The notebooks of the documentation are those of their sources, show what came out, and run on models of the demo."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from demo_exports import write_exports
from notebooks.command import GENERATIVE, TARGET, sources
from notebooks.making import notebook_of, run, write
from PIL import Image

NAMES = sorted(sources())
LARGEST = 100_000
"""Bytes of a notebook with its outputs."""


def committed(name: str) -> Any:
    return nbformat.read(TARGET / f"{name}.ipynb", as_version=4)


def test_there_is_one_for_each_source_and_the_page_links_to_it(root: Path) -> None:
    page = (root / "docs" / "notebooks.md").read_text("utf-8")
    assert sorted(path.stem for path in TARGET.glob("*.ipynb")) == NAMES and len(NAMES) == 3
    assert sorted(re.findall(r"\(notebooks/(\w+)\.ipynb\)", page)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_is_made_from_its_source_and_names_what_it_installs(name: str) -> None:
    made, there = notebook_of(sources()[name].read_text("utf-8")), committed(name)
    assert [(cell.cell_type, cell.source, cell.id) for cell in made.cells] == [
        (cell.cell_type, cell.source, cell.id) for cell in there.cells
    ]
    first = next(cell for cell in there.cells if cell.cell_type == "code")
    assert first.source.startswith("# Installs blip2_train where it is not there") and "pip" in first.source


@pytest.mark.parametrize("name", NAMES)
def test_it_shows_what_came_out_and_nothing_of_the_machine(name: str) -> None:
    text = (TARGET / f"{name}.ipynb").read_text("utf-8")
    assert len(text.encode()) < LARGEST
    code = [cell for cell in committed(name).cells if cell.cell_type == "code"]
    outputs = [output for cell in code for output in cell.outputs]
    assert code[0].outputs == [] and all(cell.outputs for cell in code[1:])
    assert {output.output_type for output in outputs} <= {"stream", "execute_result"}
    assert not any(output.get("name") == "stderr" for output in outputs)
    images = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(images) == 1, "the image, once"
    plain = json.dumps([output for output in outputs if output not in images])
    assert not re.search(r"/(?:home|root|work|tmp|usr|opt)/", plain)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_they_run_on_models_of_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exports = write_exports(tmp_path / "exports")
    Image.new("RGB", (96, 96), (200, 40, 40)).save(tmp_path / "image.png")
    monkeypatch.setenv("BLIP2_IMAGE", "image.png")
    monkeypatch.setenv("BLIP2_TEXTS", "a cat;two dogs")
    for name in NAMES:
        monkeypatch.setenv("BLIP2_MODEL", exports["opt" if name in GENERATIVE else "stage1"])
        done = run(notebook_of(sources()[name].read_text("utf-8")), tmp_path)
        write(done, tmp_path / f"{name}.ipynb")
        again = nbformat.read(tmp_path / f"{name}.ipynb", as_version=4)
        outputs = [[output.output_type for output in cell.get("outputs", [])] for cell in again.cells]
        assert outputs == [[output.output_type for output in cell.get("outputs", [])] for cell in committed(name).cells]
