"""The images that must not get into the shards, because something is tested on them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from blip2_train.data.annotations.captions import read_captions
from blip2_train.data.annotations.content import SUFFIXES
from blip2_train.data.printable_names import printable_name
from blip2_train.data.storage.local_copy import local_copy
from blip2_train.errors import ShardError


def read_exclusions(files: Sequence[str], split: str | None = None) -> frozenset[str]:
    """The names of excluded images: ids, paths, or SHA-256 of the files in lower-case hexadecimal.

    Args:
        files: annotation files, of which each image's id, path and file name count (but for names that are a mere
            number, as those of Visual Genome are); or text files with a name in each line.
        split: of annotation files that have splits, which images to exclude; several joined by `+`.

    Raises:
        ShardError: naming the file and what to do.
    """
    return frozenset(printable_name(name) for file in files for name in _names(local_copy(file), split))


def _names(file: Path, split: str | None) -> Iterator[str]:
    if file.name.lower().endswith(SUFFIXES):
        for image in read_captions(file, split):
            yield image.path
            if re.search(r"[^\W\d]", PurePosixPath(image.path).stem):
                yield PurePosixPath(image.path).name
            if image.image_id not in (None, "") and not image.counted:
                yield str(image.image_id)
        return
    try:
        text = file.read_text(encoding="utf-8-sig", errors="surrogateescape")  # names of files may be no UTF-8
    except OSError as error:
        raise ShardError(f"list of excluded images {file} cannot be read ({error}); give a UTF-8 text file") from None
    if "\0" in text:
        raise ShardError(f"list of excluded images {file} is no text of lines; save it as UTF-8")
    lines = [line.strip() for line in text.split("\n")]
    if not any(lines):
        raise ShardError(f"list of excluded images {file} is empty; write an id, a path or a SHA-256 in each line")
    yield from (line.lower() if re.fullmatch(r"[0-9A-Fa-f]{64}", line) else line for line in lines if line)
