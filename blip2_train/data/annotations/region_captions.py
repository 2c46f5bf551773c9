"""Visual Genome's `region_descriptions.json`: every phrase about a part of an image is a caption of the whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from blip2_train.data.annotations.entry import Entry, shown
from blip2_train.data.annotations.rows import Rows
from blip2_train.data.sources.annotated_images import AnnotatedImage
from blip2_train.errors import ShardError

REGIONS = 'Visual Genome\'s [{"id": …, "regions": [{"image_id": …, "phrase": …}]}]'


def region_images(file: Path, rows: Rows, *, strict: bool) -> Iterator[AnnotatedImage]:
    """The images in the order of the file.

    Raises:
        ShardError: naming the file, the entry and the field.
    """
    for _, entry_number, values in rows:
        entry = Entry(file, f"{rows.unit} {entry_number}", values, strict, REGIONS)
        image = entry.identity("id")
        phrases = []
        for region in entry.entries("regions"):
            about = image if "image_id" not in region.values else region.identity("image_id")
            if about != image:
                raise ShardError(
                    f"{file}, {entry.where}: image {shown(image)} has a region of image {shown(about)}; get the "
                    "official file again"
                )
            phrases.append(region.text("phrase"))
        # Its numbers are not those of COCO: without a name in front, two images of a mixture would count as one.
        yield AnnotatedImage(
            row=entry.where, path=f"{image}.jpg", captions=tuple(phrases), image_id=f"visual_genome_{image}"
        )
