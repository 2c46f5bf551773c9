"""Finds images in files and folders, and reads them batch by batch while the model works on the batch before."""

from __future__ import annotations

import itertools
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from blip2_train.data.batches.processor import Processor
from blip2_train.data.sources.image_files import ENDINGS, files_below, passed_over_summary
from blip2_train.errors import Blip2TrainError, ConfigError, ShardError

_READERS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True, kw_only=True)
class ReadImage:
    """An image of the list, or why there is none."""

    number: int
    """Place in the list, from 0."""
    path: Path
    pixel_values: Tensor | None
    """`(3, H, W)`, normalised."""
    error: str = ""


class ImageList:
    """Images named one by one, and those below folders, in order of name; never held in memory as a list.

    Args:
        paths: Files, taken whatever they are called, and folders, of which the files that `files_below` has for
            images are taken, and the others counted.

    Raises:
        ConfigError: if a path does not exist, or there is no image at all.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = [Path(path).expanduser() for path in dict.fromkeys(paths)]
        for path in self.paths:
            if not path.exists():
                raise ConfigError(f"there is no image or folder {path}; check the path")
        reasons = Counter(passed_over for _, passed_over in self._files())
        self.count = reasons.pop("", 0)
        self.passed_over = passed_over_summary(reasons.elements())
        """What is in the folders beside images, for people; empty if nothing is."""
        if not self.count:
            shown, rest = ", ".join(map(str, self.paths[:3])), f" ({self.passed_over})" if self.passed_over else ""
            raise ConfigError(
                f"no image found in {shown}{rest}; give image files, or folders with .{' .'.join(ENDINGS)} files"
                if self.paths
                else "no image is given; name image files or folders with images"
            )

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Path]:
        return (path for path, passed_over in self._files() if not passed_over)

    def _files(self) -> Iterator[tuple[Path, str]]:
        """Every file, and why it is passed over, if it is."""
        for path in self.paths:
            if path.is_dir():
                yield from ((path / file, passed_over) for file, passed_over in files_below(path))
            else:
                yield path, ""


def read_batches(paths: Iterable[Path], processor: Processor, batch_size: int) -> Iterator[list[ReadImage]]:
    """Batches of images in order, broken ones included; at most two batches are in memory.

    Args:
        paths: Of the images.
        processor: Of the model.
        batch_size: Images per batch, the broken ones counted.
    """

    def read(number: int, path: Path) -> ReadImage:
        try:
            return ReadImage(number=number, path=path, pixel_values=processor.image(path))
        except Blip2TrainError as error:
            return ReadImage(number=number, path=path, pixel_values=None, error=str(error))

    numbered = enumerate(paths)
    waiting: deque[Future[ReadImage]] = deque()
    with ThreadPoolExecutor(_READERS) as readers:
        while True:
            free = 2 * batch_size - len(waiting)
            waiting.extend(readers.submit(read, *item) for item in itertools.islice(numbered, free))
            if not waiting:
                return
            yield [waiting.popleft().result() for _ in range(min(batch_size, len(waiting)))]


@dataclass
class BrokenImages:
    """Keeps count of images that could not be read."""

    total: int = 0
    first: str = ""

    def add(self, image: ReadImage) -> list[dict[str, Any]]:
        """Count one; returns what is written about it."""
        self.total += 1
        self.first = self.first or image.error
        return [{"error": image.error}]

    def complain(self, count: int) -> None:
        """Say so at the end, if there were any among `count` images.

        Raises:
            ShardError: with the reason of the first.
        """
        if self.total and count == 1:
            raise ShardError(self.first)
        if self.total:
            done = f"the other {count - self.total} are done" if self.total < count else "nothing was done"
            raise ShardError(f"{self.total} of {count} images could not be read, {done}; the first: {self.first}")
