"""Finds images in all that an argument can name, and reads them batch by batch while the model works."""

from __future__ import annotations

import itertools
import os
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

from torch import Tensor

from blip2_train.data.batches.image_inputs import local_path
from blip2_train.data.batches.processor import Processor
from blip2_train.data.printable_names import printable_name
from blip2_train.data.sources.image_files import ENDINGS, files_below, passed_over_summary
from blip2_train.data.sources.image_folders import ImageFolders
from blip2_train.data.sources.image_stream import FORMS, StreamedImage, holds_images, streamed_images
from blip2_train.data.storage.web import is_address, result_name
from blip2_train.errors import Blip2TrainError, ConfigError, ShardError
from blip2_train.system.screen import echo

STDIN = "-"
_READERS = min(4, os.cpu_count() or 1)
_NAMED = 10
"""Files passed over that are named at the end."""


@dataclass(frozen=True, kw_only=True)
class ReadImage:
    """An image of the list, or why there is none."""

    number: int
    """Index in the list, from 0."""
    name: str
    pixel_values: Tensor | None
    """`(3, H, W)`, normalised."""
    error: str = ""


class ImageList:
    """Images in the order in which they are named; never held in memory as a list.

    Args:
        names: Files, taken whatever they are called; `http(s)://` addresses; folders, of which the files that
            `files_below` has for images are taken (of a folder without any, its tar shards or Parquet files); shards,
            Parquet files and annotation files; and `-`, of which each line names one of all these.
        column: Column of the image in Parquet and annotation files, see `streamed_images`.
        folder: Where the paths in these start, see there.
        stdin: What `-` reads; None = standard input.

    Raises:
        ConfigError: if a path does not exist, or there is no image at all.
        ShardError: if there is no such folder.
    """

    def __init__(
        self,
        names: Sequence[str],
        column: str | None = None,
        folder: str | None = None,
        stdin: TextIO | None = None,
    ) -> None:
        self.names, self._column, self._stdin = list(dict.fromkeys(names)), column, stdin
        self._folder = folder
        if folder is not None:
            ImageFolders(folder)  # so that one that is not there is an error before the model is loaded
        for name in self.names:
            if name != STDIN and not is_address(name) and not os.path.exists(local_path(name)):
                raise ConfigError(
                    f"there is no image or folder {name}; check the path, or give an http(s) address or - for paths "
                    "from standard input"
                )
        self._passed_over: Counter[str] = Counter()
        self._first_passed_over: list[str] = []
        self.count = self._counted()
        """How many there are; None if that is known at the end only."""
        if self.count == 0:
            shown, rest = ", ".join(self.names[:3]), f" ({self.passed_over})" if self.passed_over else ""
            raise ConfigError(
                f"no image found in {shown}{rest}; give image files, or folders with .{' .'.join(ENDINGS)} files"
                if self.names
                else "no image is given; name image files or folders with images"
            )

    @property
    def passed_over(self) -> str:
        """What is in the folders beside images, for people: how many of each kind, and the first names."""
        named = self._first_passed_over
        more = self._passed_over.total() - len(named)
        listed = f" ({', '.join(named)}{f' and {more:,} more' if more else ''})" if named else ""
        return f"{passed_over_summary(self._passed_over.elements())}{listed}"

    def __iter__(self) -> Iterator[StreamedImage]:
        return itertools.chain.from_iterable(map(self._of, self.names))

    def _counted(self) -> int | None:
        """Counts what is passed over, too: the folders are walked once before anything is read."""
        total = 0
        known = True
        for name in self.names:
            files = [local_path(name)]
            if name == STDIN:
                known = False
            elif is_address(name):
                total += 1
            elif files[0].is_dir():
                count = self._walked(files[0])
                known &= bool(count) or not _data_files(files[0])
                total += count
            elif holds_images(files[0]):
                known = False
            else:
                total += 1
        return total if known else None

    def _walked(self, folder: Path) -> int:
        count = 0
        data = {file.name for file in _data_files(folder)}
        skipped: list[tuple[str, str]] = []
        for file, reason in files_below(folder):
            if reason:
                skipped.append((file, reason))
            else:
                count += 1
        for file, reason in skipped:
            if count or file not in data:
                self._passed_over[reason] += 1
                if len(self._first_passed_over) < _NAMED:
                    self._first_passed_over.append(printable_name(file))
        return count

    def _of(self, name: str) -> Iterator[StreamedImage]:
        """The images that a name stands for."""
        if name == STDIN:
            for line in _lines_of_stdin() if self._stdin is None else self._stdin:
                if named := line.rstrip("\r\n"):
                    yield from self._of_line(named)
            return
        path = local_path(name)
        if is_address(name):
            yield StreamedImage(result_name(name), name)
        elif path.is_dir():
            images = (path / file for file, passed_over in files_below(path) if not passed_over)
            first = next(images, None)
            if first is None:
                for file in _data_files(path):
                    yield from streamed_images(file, self._column, self._folder)
            else:
                yield from (StreamedImage(str(file), str(file)) for file in itertools.chain([first], images))
        elif holds_images(path):
            yield from streamed_images(path, self._column, self._folder)
        else:
            yield StreamedImage(str(path), str(path))

    def _of_line(self, name: str) -> Iterator[StreamedImage]:
        """As `_of`; a folder's other files are counted here, a path that is not there is an image that is broken."""
        path = local_path(name)
        if is_address(name) or path.exists():
            if path.is_dir():
                self._walked(path)
            yield from self._of(name) if name != STDIN else ()
        else:
            yield StreamedImage(name, b"", f"there is no image {name}")


def _data_files(folder: Path) -> list[Path]:
    """The shards of a folder, or else its Parquet files."""
    return sorted(folder.glob("*.tar")) or sorted(folder.glob("*.parquet"))


def read_batches(images: Iterable[StreamedImage], processor: Processor, batch_size: int) -> Iterator[list[ReadImage]]:
    """Batches of images in order, broken ones included; at most two batches are in memory.

    Args:
        images: From an `ImageList`.
        processor: Of the model.
        batch_size: Images per batch, the broken ones counted.
    """

    def read(number: int, image: StreamedImage) -> ReadImage:
        if image.error:
            return ReadImage(number=number, name=image.name, pixel_values=None, error=image.error)
        try:
            return ReadImage(number=number, name=image.name, pixel_values=processor.image(image.content))
        except Blip2TrainError as error:
            text = f"{image.name}: {error}" if isinstance(image.content, bytes) else str(error)
            return ReadImage(number=number, name=image.name, pixel_values=None, error=text)

    numbered = enumerate(images)
    waiting: deque[Future[ReadImage]] = deque()
    with ThreadPoolExecutor(_READERS) as readers:
        while True:
            free = 2 * batch_size - len(waiting)
            waiting.extend(readers.submit(read, *item) for item in itertools.islice(numbered, free))
            if not waiting:
                return
            yield [waiting.popleft().result() for _ in range(min(batch_size, len(waiting)))]


@dataclass
class Progress:
    """Keeps count of images that were read, and of those that could not be."""

    total: int = 0
    broken: int = 0
    first: str = ""

    def add(self, image: ReadImage) -> list[dict[str, Any]]:
        """Count a broken one; returns what is written about it."""
        self.broken += 1
        self.first = self.first or image.error
        return [{"error": image.error}]

    def close(self, images: ImageList | None, seconds: float, what: str = "images") -> None:
        """Say how many were done, what was passed over, and what could not be read.

        Raises:
            ShardError: with the reason of the first that could not.
            ConfigError: if there was no image.
        """
        echo(f"{self.total - self.broken} {what} in {seconds:.1f} s", file=sys.stderr)
        if images is not None and images.passed_over:
            echo(images.passed_over, file=sys.stderr)
        if not self.total:
            named = ", ".join(images.names[:3]) if images else "nothing"
            raise ConfigError(f"no image found in {named}; give image files, folders, or {' '.join(FORMS)} files")
        if self.broken and self.total == 1:
            raise ShardError(self.first)
        if self.broken:
            left = self.total - self.broken
            done = f"the other {left} are done" if left else "none is done"
            raise ShardError(f"{self.broken} of {self.total} images could not be read, {done}; the first: {self.first}")


def _lines_of_stdin() -> Iterator[str]:
    """Names of files, which need not be UTF-8."""
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    return iter(sys.stdin)
