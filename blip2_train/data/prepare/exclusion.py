"""The pictures that must not get into the shards, because something is tested on them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from blip2_train.data.annotations.captions import read_captions
from blip2_train.data.annotations.content import SUFFIXES
from blip2_train.data.local_copy import local_copy
from blip2_train.data.names import printable_name
from blip2_train.errors import ShardError


def read_exclusions(files: Sequence[str], split: str | None = None) -> frozenset[str]:
    """The names of excluded pictures: ids, paths, or SHA-256 of the files in lower-case hexadecimal.

    Args:
        files: annotation files, of which each picture's id, path and file name count (but for names that are a mere
            number, as those of Visual Genome are); or text files with a name in each line.
        split: of annotation files that have splits, which pictures to exclude; several joined by `+`.

    Raises:
        ShardError: naming the file and what to do.
    """
    return frozenset(printable_name(name) for file in files for name in _names(local_copy(file), split))


def _names(file: Path, split: str | None) -> Iterator[str]:
    if file.name.lower().endswith(SUFFIXES):
        for picture in read_captions(file, split):
            yield picture.path
            if re.search(r"[^\W\d]", PurePosixPath(picture.path).stem):
                yield PurePosixPath(picture.path).name
            if picture.image_id not in (None, "") and not picture.counted:
                yield str(picture.image_id)
        return
    try:
        text = file.read_text(encoding="utf-8-sig", errors="surrogateescape")  # names of files may be no UTF-8
    except OSError as error:
        raise ShardError(f"list of excluded pictures {file} cannot be read ({error}); give a UTF-8 text file") from None
    if "\0" in text:
        raise ShardError(f"list of excluded pictures {file} is no text of lines; save it as UTF-8")
    lines = [line.strip() for line in text.split("\n")]
    if not any(lines):
        raise ShardError(f"list of excluded pictures {file} is empty; write an id, a path or a SHA-256 in each line")
    yield from (line.lower() if re.fullmatch(r"[0-9A-Fa-f]{64}", line) else line for line in lines if line)
