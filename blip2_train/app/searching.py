"""Search in a folder of images, by a text or by an image; features are computed once for each file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from blip2_train.app.python_code import literal, loading_code
from blip2_train.data.printable_names import printable_name
from blip2_train.data.sources.image_files import files_below, passed_over_summary
from blip2_train.errors import ConfigError, ShardError
from blip2_train.evaluation.inference import AT_ONCE, Blip2
from blip2_train.evaluation.search.index import SearchIndex
from blip2_train.evaluation.search.index_record import model_fingerprint
from blip2_train.evaluation.search.searcher import Hit, Searcher

SHORTLIST = 32
"""Images, at least, whose order the probability of a match decides."""
MOST_IMAGES = 50_000
"""Images of a folder: their features take 1.6 GB with BLIP-2's 32 queries."""

Advance = Callable[[int, int], None]
"""Called with how many images are done, of how many."""
_Stamp = tuple[int, int]
"""Size of a file in bytes, and the time of its last change in nanoseconds."""


class SearchedFolder(NamedTuple):
    """The images of a folder, ready to be searched."""

    searcher: Searcher
    summary: str
    """What is searched, for people."""


@dataclass(frozen=True)
class _Kept:
    """What is kept of a folder: its files as they were, and what was made of them."""

    stamps: dict[Path, _Stamp]
    features: dict[Path, Tensor]
    """`(Q, E)` of each image that can be read."""
    folder: SearchedFolder


class FolderIndices:
    """Folders of images as a model sees them; what was computed of the last ones is kept.

    Args:
        model: An image-text model.

    Raises:
        ConfigError: if the model reads no texts.
    """

    def __init__(self, model: Blip2) -> None:
        model.image_text("search")
        self.model, self._fingerprint = model, model_fingerprint(model)
        self._kept: dict[Path, _Kept] = {}

    def read(self, folder: Path, advance: Advance = lambda done, total: None) -> SearchedFolder:
        """The images of a folder, at any depth; only those that are new or changed are read.

        Args:
            folder: The folder.
            advance: Told how far the reading is.

        Raises:
            ConfigError: if there is no such folder, or it holds no image or too many.
        """
        paths, passed_over = _images_below(folder)
        stamps = {path: _stamp(path) for path in paths}
        kept = self._kept.get(folder)
        if kept is not None and kept.stamps == stamps:
            return kept.folder
        known = {} if kept is None else kept.features
        features = {p: known[p] for p in paths if kept is not None and p in known and kept.stamps[p] == stamps[p]}
        broken: list[ShardError] = []
        new = [path for path in paths if path not in features]
        for done, part in self._features(new, broken):
            features |= part
            advance(done, len(new))
        if not features:
            raise ConfigError(f"none of the {len(paths)} images in {folder} can be read: {broken[0]}")
        good = [path for path in paths if path in features]
        index = SearchIndex(
            kind="image",
            names=[str(path) for path in good],
            features=torch.stack([features[path] for path in good]),
            model=self._fingerprint,
            source=self.model.source,
        )
        parts = [f"{len(good):,} images", f"{len(broken)} unreadable" if broken else "", passed_over]
        made = SearchedFolder(Searcher(self.model, index), ", ".join(filter(None, parts)))
        self._kept = {folder: _Kept(stamps, features, made)}
        return made

    def _features(self, paths: list[Path], broken: list[ShardError]) -> Iterator[tuple[int, dict[Path, Tensor]]]:
        for first in range(0, len(paths), AT_ONCE):
            pixels: dict[Path, Tensor] = {}
            for path in paths[first : first + AT_ONCE]:
                try:
                    pixels[path] = self.model.processor.image(path)
                except ShardError as error:
                    broken.append(error)
            features = self.model.embed(list(pixels.values()))["image_features"] if pixels else ()
            yield min(first + AT_ONCE, len(paths)), dict(zip(pixels, features, strict=True))


def images_of_text(folder: SearchedFolder, text: str, count: int, rerank: bool = True) -> list[Hit]:
    """The images of a folder that fit a text best.

    Args:
        folder: The folder.
        text: The text.
        count: Images to give.
        rerank: Whether the probability of a match decides the order of the most similar ones.

    Raises:
        ConfigError: if the text is empty.
    """
    return folder.searcher.by_texts(text, count, rerank=max(count, SHORTLIST) if rerank else 0)[0]


def lines_of_hit(hit: Hit) -> list[str]:
    """Name and scores of a hit, for people."""
    probability = [] if hit.itm is None else [f"ITM {100 * hit.itm:.1f} %"]
    return [printable_name(Path(hit.name).name), *probability, f"cosine {hit.similarity:.3f}"]


def search_code(source: str, folder: str, search: str, device: str = "cpu", dtype: str | None = None) -> str:
    """A program that searches a folder.

    Args:
        source: Of the model.
        folder: The folder.
        search: The call of a method of `Searcher`, see `by_text_code` and `by_image_code`.
        device: As for `load_pretrained`.
        dtype: As for `load_pretrained`.
    """
    return f"""from pathlib import Path

{loading_code(source, device, dtype).replace("as b2", "as b2" + _IMPORTS, 1)}

folder = Path({literal(folder)})
files = list(files_below(folder))
paths = [str(folder / file.path) for file in files if not file.passed_over]
broken = []
index = SearchIndex.of_images(model, paths, paths, broken=broken)
print(len(index), "images,", len(broken), "unreadable,", len(files) - len(paths), "passed over")
for hit in Searcher(model, index).{search}[0]:
    print(hit.name, hit.similarity, hit.itm)"""


def by_text_code(text: str, count: int, rerank: bool) -> str:
    """The call that `images_of_text` makes."""
    return f"by_texts({literal(text)}, {count}" + (f", rerank={max(count, SHORTLIST)})" if rerank else ")")


def by_image_code(image: Path, count: int) -> str:
    """The call for images like an image, which is named without its folder."""
    return f"by_images({literal(image.name)}, {count})"


_IMPORTS = """
from blip2_train.data.sources.image_files import files_below
from blip2_train.evaluation.search.index import SearchIndex
from blip2_train.evaluation.search.searcher import Searcher"""


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of a file; of one that is gone, or a link to nothing, what no file has."""
    try:
        status = path.stat()
    except OSError:
        return -1, 0
    return status.st_size, status.st_mtime_ns


def _images_below(folder: Path) -> tuple[list[Path], str]:
    """The image files of a folder, and what else it holds."""
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder}; name a folder with images")
    paths: list[Path] = []
    others: list[str] = []
    for file, reason in files_below(folder):
        if reason:
            others.append(reason)
        elif len(paths) == MOST_IMAGES:
            raise ConfigError(
                f"{folder} holds more than {MOST_IMAGES:,} images, for which a page has no room; see predict.py search"
            )
        else:
            paths.append(folder / file)
    if not paths:
        raise ConfigError(f"no image found in {folder}; name a folder with images")
    return paths, passed_over_summary(others)
