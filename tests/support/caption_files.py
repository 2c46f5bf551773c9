"""The same images with captions in every layout of annotation files, for tests."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from shard_files import image, letters

Row = tuple[str, str, int]
"""Path, caption, image id."""


def rows(count: int, captions: int = 1) -> list[Row]:
    """`captions` rows for each of `count` images; captions name the image in letters."""
    return [
        (f"p{n:02d}.jpg", f"a cat {' '.join(letters(f'{n:02d}{c}'))}", 100 + n)
        for n in range(count)
        for c in range(captions)
    ]


def write_images(folder: Path, count: int) -> None:
    """Images `p00.jpg`, …, each of its own colour."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(count):
        (folder / f"p{n:02d}.jpg").write_bytes(image((n * 11 % 256, n * 5 % 256, 255 - n)))


def as_csv(path: Path, content: Sequence[Row]) -> Path:
    file = path.with_suffix(".csv")
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("image", "caption", "image_id"), *content])
    return file


def as_lines(path: Path, content: Sequence[Row]) -> Path:
    lines = [json.dumps({"file_name": image, "text": text, "image_id": number}) for image, text, number in content]
    file = path.with_suffix(".jsonl")
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def as_list(path: Path, content: Sequence[Row]) -> Path:
    """The layout of the released code."""
    entries = [{"image": image, "caption": text, "image_id": f"coco_{number}"} for image, text, number in content]
    return _json(path, entries)


def as_coco(path: Path, content: Sequence[Row]) -> Path:
    ids = {number: image for image, _, number in content}
    return _json(
        path,
        {
            "images": [{"id": number, "file_name": image} for number, image in ids.items()],
            "annotations": [
                {"id": n, "image_id": number, "caption": text} for n, (_, text, number) in enumerate(content)
            ],
        },
    )


def as_karpathy(path: Path, content: Sequence[Row]) -> Path:
    ids = {number: image for image, _, number in content}
    return _json(
        path,
        {
            "images": [
                {
                    "filename": image,
                    "split": "train",
                    "cocoid": number,
                    "sentences": [{"raw": text} for _, text, other in content if other == number],
                }
                for number, image in ids.items()
            ]
        },
    )


LAYOUTS: dict[str, Callable[[Path, Sequence[Row]], Path]] = {
    "csv": as_csv,
    "lines": as_lines,
    "list": as_list,
    "coco": as_coco,
    "karpathy": as_karpathy,
}


def _json(path: Path, content: Any) -> Path:
    file = path.with_suffix(".json")
    file.write_text(json.dumps(content), encoding="utf-8")
    return file
