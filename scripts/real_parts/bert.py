"""A BERT that a package ships in Hugging Face's layout: taken as it is."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path


def convert_bert(files: Mapping[str, Path], folder: Path) -> None:
    """Copy configuration, weights, tokenizer and licence into `folder`."""
    for name, path in files.items():
        shutil.copyfile(path, folder / Path(name).name)
