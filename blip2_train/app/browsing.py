"""What a data set holds: images with their captions, what is rejected and why, tokens that a model does not know."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from blip2_train.app.python_code import literal
from blip2_train.data.batches.unknown_tokens import UnknownTokens, unknown_tokens
from blip2_train.data.emoji_scenes.scene_source import SceneSourceConfig, prepare_scenes
from blip2_train.data.printable_names import printable_name
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.sources.config import SourceConfig, open_source
from blip2_train.data.sources.holdout import evenly_chosen
from blip2_train.data.sources.source import CaptionSource
from blip2_train.data.stream.inspection import inspect_samples
from blip2_train.errors import ConfigError
from blip2_train.types import RejectedSample

WORLD = "the emoji scenes"
"""Name of the demo's data, which are drawn."""
SIDE = 320
"""Pixels of the longer side of an image of a page."""


@dataclass(frozen=True, kw_only=True)
class ShownSample:
    """A sample of a page."""

    index: int
    image: Image.Image
    captions: tuple[str, ...]
    """As written."""


@dataclass(frozen=True, kw_only=True)
class DataPage:
    """Some samples of a set, and what is wrong with many."""

    total: int
    """Samples of the set."""
    looked_at: int
    """Samples that were looked at for the counts."""
    samples: list[ShownSample]
    rejected: tuple[RejectedSample, ...]
    """Of the samples looked at, and what opening the set has rejected."""
    left_out: tuple[RejectedSample, ...]
    """Captions that cannot be used, of images that can."""
    captions: int
    """Captions looked at."""
    unknown: UnknownTokens | None
    """Of the captions looked at; None without a tokenizer."""

    @property
    def reasons(self) -> Counter[str]:
        """How many were rejected for each reason."""
        return Counter(sample.reason for sample in (*self.rejected, *self.left_out))


def open_set(name: str, images: str, folder: Path) -> CaptionSource:
    """The source of a name.

    Args:
        name: `WORLD`, a folder or glob of shards, or an annotation file.
        images: Folder that the paths of an annotation file start from; empty = its own.
        folder: Where the size of the emoji scenes may be noted.

    Raises:
        ShardError: if there is no such set, or it holds no usable sample.
        ConfigError: if the name cannot be used.
    """
    if name.strip() != WORLD:
        return open_source(SourceConfig(path=name.strip(), images=images.strip() or None))
    prepare_scenes(folder / "world", steps=1, global_batch_size=1)
    return open_source(SceneSourceConfig(path=str(folder / "world" / "shards" / "train"), name="emoji_scenes"))


def look_at(source: CaptionSource, first: int, count: int, looked_at: int, tokenizer: Any = None) -> DataPage:
    """A page of a set.

    Args:
        source: The set.
        first: Index of the page's first sample.
        count: Samples of the page.
        looked_at: Samples, of the whole set, that are looked at for the counts.
        tokenizer: Of a model (`Processor.own_tokenizer`), or None.

    Raises:
        ConfigError: if there is no sample `first`.
    """
    total = len(source)
    if not 0 <= first < total:
        raise ConfigError(f"there is no sample {first}; the set has samples 0 … {total - 1}")
    page = range(first, min(first + count, total))
    chosen = sorted({*page, *evenly_chosen(total, looked_at).tolist()})
    seen = inspect_samples(source, "looked at", total, chosen)
    texts = seen.texts
    return DataPage(
        total=total,
        looked_at=len(chosen),
        samples=[shown for index in page if (shown := _shown(source, index)) is not None],
        rejected=(*source.rejected, *seen.broken),
        left_out=seen.left_out,
        captions=len(texts),
        unknown=None if tokenizer is None else unknown_tokens(tokenizer, texts),
    )


def data_code(name: str, images: str, first: int, count: int, looked_at: int, loading: str = "") -> str:
    """A program that prints a page of a set: captions, what is rejected and why, and what a tokenizer does not know.

    Args:
        name: As for `open_set`, as `images`; the size of the emoji scenes is noted in the folder of the program.
        images: Folder of the images.
        first: As for `look_at`, as `count` and `looked_at`.
        count: Samples of the page.
        looked_at: Samples that are looked at for the counts.
        loading: The call that loads the model of the tokenizer; empty = none.
    """
    model = f"_, processor = {loading}\n" if loading else ""
    page = f"{first}, {count}, {looked_at}" + (", processor.own_tokenizer" if loading else "")
    needed = "import blip2_train as b2\n" if loading else ""
    return f"""from pathlib import Path

{needed}from blip2_train.app.browsing import look_at, open_set

{model}source = open_set({literal(name.strip())}, {literal(images.strip())}, Path())
page = look_at(source, {page})
for sample in page.samples:  # sample.image.show() shows one
    print(sample.index, sample.image.size, *sample.captions)
for sample in [*page.rejected, *page.left_out]:
    print(sample.source, sample.key, sample.reason, sample.detail)
print(page.total, "samples, looked at:", page.looked_at, "with", page.captions, "captions")
print(page.unknown or "no tokenizer was asked")"""


def _shown(source: CaptionSource, index: int) -> ShownSample | None:
    """A sample as the page shows it; None if it cannot be used."""
    try:
        record = source.read(index)
        image = record.decoded()
    except UnusableSample:
        return None
    image.thumbnail((SIDE, SIDE))
    return ShownSample(index=index, image=image, captions=tuple(map(printable_name, record.captions)))
