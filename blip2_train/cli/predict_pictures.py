"""Finds pictures in files and folders, and reads them batch by batch while the model works on the batch before."""

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

from blip2_train.data.picture_files import ENDINGS, files_below, told
from blip2_train.data.processor import Processor
from blip2_train.errors import Blip2TrainError, ConfigError, ShardError

_READERS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True, kw_only=True)
class ReadPicture:
    """A picture of the list, or why there is none."""

    number: int
    """Place in the list, from 0."""
    path: Path
    pixel_values: Tensor | None
    """`(3, H, W)`, normalised."""
    error: str = ""


class PictureList:
    """Pictures named one by one, and those below folders, in order of name; never held in memory as a list.

    Args:
        places: Files, taken whatever they are called, and folders, of which the files that `files_below` has for
            pictures are taken, and the others counted.

    Raises:
        ConfigError: if a place does not exist, or there is no picture at all.
    """

    def __init__(self, places: Sequence[str]) -> None:
        self.places = [Path(place).expanduser() for place in dict.fromkeys(places)]
        for place in self.places:
            if not place.exists():
                raise ConfigError(f"there is no picture or folder {place}; check the path")
        reasons = Counter(passed_over for _, passed_over in self._found())
        self.count = reasons.pop("", 0)
        self.passed_over = told(reasons.elements())
        """What is in the folders beside pictures, for people; empty if nothing is."""
        if not self.count:
            shown, rest = ", ".join(map(str, self.places[:3])), f" ({self.passed_over})" if self.passed_over else ""
            raise ConfigError(
                f"no picture found in {shown}{rest}; give picture files, or folders with .{' .'.join(ENDINGS)} files"
                if self.places
                else "no picture is given; name picture files or folders with pictures"
            )

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Path]:
        return (path for path, passed_over in self._found() if not passed_over)

    def _found(self) -> Iterator[tuple[Path, str]]:
        """Every file, and why it is passed over, if it is."""
        for place in self.places:
            if place.is_dir():
                yield from ((place / path, passed_over) for path, passed_over in files_below(place))
            else:
                yield place, ""


def read_batches(paths: Iterable[Path], processor: Processor, batch_size: int) -> Iterator[list[ReadPicture]]:
    """Batches of pictures in order, broken ones included; at most two batches are in memory.

    Args:
        paths: Of the pictures.
        processor: Of the model.
        batch_size: Pictures per batch, the broken ones counted.
    """

    def read(number: int, path: Path) -> ReadPicture:
        try:
            return ReadPicture(number=number, path=path, pixel_values=processor.image(path))
        except Blip2TrainError as error:
            return ReadPicture(number=number, path=path, pixel_values=None, error=str(error))

    numbered = enumerate(paths)
    waiting: deque[Future[ReadPicture]] = deque()
    with ThreadPoolExecutor(_READERS) as readers:
        while True:
            free = 2 * batch_size - len(waiting)
            waiting.extend(readers.submit(read, *item) for item in itertools.islice(numbered, free))
            if not waiting:
                return
            yield [waiting.popleft().result() for _ in range(min(batch_size, len(waiting)))]


@dataclass
class BrokenPictures:
    """Keeps count of pictures that could not be read."""

    total: int = 0
    first: str = ""

    def add(self, picture: ReadPicture) -> list[dict[str, Any]]:
        """Count one; returns what is written about it."""
        self.total += 1
        self.first = self.first or picture.error
        return [{"error": picture.error}]

    def complain(self, count: int) -> None:
        """Say so at the end, if there were any among `count` pictures.

        Raises:
            ShardError: with the reason of the first.
        """
        if self.total and count == 1:
            raise ShardError(self.first)
        if self.total:
            done = f"the other {count - self.total} are done" if self.total < count else "nothing was done"
            raise ShardError(f"{self.total} of {count} pictures could not be read, {done}; the first: {self.first}")
