"""Images with captions from annotation files of every known layout, detected by name and content.

The same reader serves training and evaluation, with one option. Strict: every value must be present and consistent.
Lenient: unusable values are skipped, and the training source counts them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from blip2_train.data.annotations.annotated_images import AnnotatedImage, AnnotatedImages, HeldImages, PackedImages
from blip2_train.data.annotations.caption_layouts import (
    COCO,
    KARPATHY,
    REGIONS,
    coco_images,
    is_karpathy,
    karpathy_images,
    region_images,
)
from blip2_train.data.annotations.caption_rows import ROWS, CaptionRows
from blip2_train.data.annotations.columns import DOWNLOAD, Columns, lists_addresses
from blip2_train.data.annotations.content import as_integer, is_table, read_content
from blip2_train.data.annotations.entry import short_repr
from blip2_train.data.annotations.rows import Rows
from blip2_train.errors import ShardError

CaptionForm = Literal["coco", "karpathy", "regions", "list"]
EXPECTED = f"a list of {ROWS[1:-1]}, COCO captions {COCO}, Karpathy's {KARPATHY}, or {REGIONS}"
_FILE_NUMBER = re.compile(r"(?:.*_)?([0-9]{12})|([0-9]{1,18})")


def read_captions(
    file: str | Path, split: str | None = None, columns: Columns | None = None, *, strict: bool = False
) -> AnnotatedImages:
    """The images of one split of a file, each once, with all its captions.

    Rows of the same image are merged.

    Args:
        file: `.csv`, `.tsv`, `.jsonl`, `.json` (lines, a list, COCO captions, Karpathy's splits, or the regions of
            Visual Genome), or Flickr's `.token`.
        split: split of the images, several joined by `+`; None for files without splits.
        columns: columns of rows, where their names are not the usual ones.
        strict: refuse what training skips: captions that are null, images without captions, repeated captions.

    Raises:
        ShardError: with the file, the entry, the field and what to do.
    """
    return _read(Path(file).expanduser(), split, columns or Columns(), strict)


def read_references(
    file: str | Path, split: str | None = None, columns: Columns | None = None, form: CaptionForm | None = None
) -> list[AnnotatedImage]:
    """The images of a file, read strictly, each with its identity in predictions.

    That is the identity in the file (`id`, `image_id`, `cocoid`, `imgid`); without one, the number in the name of the
    image's file, as in COCO and Flickr30k; if names are no numbers, or two are equal, the path.

    Args:
        file: see `read_captions`; likewise split and columns.
        split: for a list of the released code, which has no splits: `train` if it has one entry per caption, another
            name if it has one per image.
        form: the layout that the file must have; None = any.

    Raises:
        ShardError: as `read_captions`; also if the file is of another layout, or an image comes twice.
    """
    path = Path(file).expanduser()
    released = form == "list"
    images = [*_read(path, None if released else split, columns or Columns(), True, form)]
    if released and split is not None:
        _check_released(path, _content(path), split)
    return _identified(path, images)


def _read(
    file: Path, split: str | None, columns: Columns, strict: bool, form: CaptionForm | None = None
) -> AnnotatedImages:
    content = _content(file)
    layout = _form(content)
    # Rows of another kind are refused before the layout is checked, with a message about their kind.
    rows = (
        None if isinstance(content, dict) or layout == "regions" else CaptionRows(file, content, columns, strict=strict)
    )
    if form is not None and form != layout:
        raise ShardError(f"{file} is of the layout {layout!r}, not {form!r}; take the official file, or set form=null")
    if rows is not None:
        # An evaluation needs all rows at once; a training set stays on the disk.
        return AnnotatedImages(file, HeldImages(rows) if strict else rows, split, together=True)
    if not isinstance(content, dict):
        images: Iterable[AnnotatedImage] = region_images(file, content, strict=strict)
    else:
        images = (karpathy_images if layout == "karpathy" else coco_images)(file, content, strict=strict)
    return AnnotatedImages(file, PackedImages(images), split, together=False)


def _form(content: Rows | dict[str, Any]) -> CaptionForm:
    if isinstance(content, dict):
        return "karpathy" if is_karpathy(content) else "coco"
    return "regions" if "regions" in next((values for _, _, values in content), {}) else "list"


def _content(file: Path) -> Rows | dict[str, Any]:
    """Rows of a table, of JSON lines or of a JSON list; or the object of a JSON file with `images`."""
    content = read_content(file, EXPECTED)
    if isinstance(content, dict) and lists_addresses([*content]):
        raise ShardError(f"{file} lists addresses of images: {DOWNLOAD}")
    if isinstance(content, dict) and not isinstance(content.get("images"), list):
        raise ShardError(f"{file} is of no known layout; expected {EXPECTED}")
    return content


def _check_released(file: Path, rows: Rows | dict[str, Any], split: str) -> None:
    """Refuse a list of the released code of another split."""
    train, seen = split == "train", set[str]()
    for _, row_number, values in rows if not isinstance(rows, dict) else ():
        if isinstance(values.get("caption"), str) != train:
            form = "one caption an entry, as a training list has" if train else "a list of captions an entry"
            raise ShardError(f"{file} is not the list of split {split!r}, which has {form}; take the other file")
        path = str(values.get("image"))
        if path in seen and not train:
            raise ShardError(
                f"{file}, entry {row_number}: image {short_repr(path)} comes twice; remove one of the two entries"
            )
        seen.add(path)


def _identified(file: Path, images: Sequence[AnnotatedImage]) -> list[AnnotatedImage]:
    file_numbers = [_file_number(image.path) for image in images]
    use_numbers = None not in file_numbers and len({*file_numbers}) == len(file_numbers)
    by_identity: dict[int | str, AnnotatedImage] = {}
    for image, file_number in zip(images, file_numbers, strict=True):
        identity = image.identity
        if image.image_id is None:
            identity = image.key if file_number is None or not use_numbers else file_number
        elif is_table(file):
            identity = as_integer(identity)
        if identity in by_identity:
            raise ShardError(
                f"{file}, {image.row}: image {short_repr(identity)} comes twice; remove one of the two entries"
            )
        by_identity[identity] = replace(image, image_id=identity)
    return [*by_identity.values()]


def _file_number(path: str) -> int | None:
    """The number that is the name of an image's file, or its last twelve digits as in COCO."""
    match = _FILE_NUMBER.fullmatch(PurePosixPath(path).stem)
    return None if match is None else int(match[1] or match[2])
