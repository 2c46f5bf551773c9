"""Turns a page of text and code into a notebook, and runs it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

_CODE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SECONDS = 600


def cells_of(text: str) -> list[Any]:
    """Cells of a page: each block of code is one, and what stands between them."""
    cells: list[Any] = []
    parts = _CODE.split(text)
    for index, part in enumerate(parts):
        if not part.strip():
            continue
        make = nbformat.v4.new_code_cell if index % 2 else nbformat.v4.new_markdown_cell
        cells.append(make(part.strip(), id=f"cell-{len(cells)}"))
    return cells


def notebook_of(text: str) -> Any:
    """A notebook that was not run, with nothing in it that differs from time to time."""
    about = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return nbformat.v4.new_notebook(cells=cells_of(text), metadata=about)


def run(notebook: Any, folder: Path) -> Any:
    """Run a notebook in a folder; returns it with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell fails.
    """
    NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


def write(notebook: Any, path: Path) -> None:
    """Write a notebook without what differs from time to time: times, warnings, parts of a line, an image twice."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.validate(notebook)
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


def _joined(outputs: list[Any]) -> list[Any]:
    """What was printed as one output, and results; nothing of standard error."""
    result: list[Any] = []
    for output in outputs:
        if output.get("name") == "stderr":
            continue
        if output.output_type == "stream" and result and result[-1].output_type == "stream":
            result[-1].text += output.text
            continue
        output.get("data", {}).pop("image/jpeg", None)
        result.append(output)
    return result
