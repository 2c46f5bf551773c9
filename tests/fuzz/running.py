"""Makes inputs from their numbers, gives them to their readers, and records the outcome of each."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import resource
import shutil
import signal
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType

from fuzz.mutation import mutated
from fuzz.readers import Reader, make_readers

from blip2_train.data.rejections import UnusableSample
from blip2_train.errors import LONGEST as LONGEST_MESSAGE
from blip2_train.errors import Blip2TrainError

LONGEST = 5.0
"""Seconds that an input may take."""
ROOM = 3 << 30
"""Bytes of addresses that reading may ask for, beyond what the process has when it starts."""


class Hang(BaseException):
    """An input took too long."""


@dataclass
class Outcome:
    """What came of some inputs."""

    read: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str, str]] = field(default_factory=list)
    """Number of the input, its reader and file, and what happened."""
    slowest: float = 0.0
    peak: int = 0
    """Bytes of memory at the highest."""

    def add(self, other: Outcome) -> None:
        """Add the outcome of another process."""
        self.read += other.read
        self.refused += other.refused
        self.failures += other.failures
        self.slowest, self.peak = max(self.slowest, other.slowest), max(self.peak, other.peak)


class Fuzzer:
    """Reads inputs that follow from a seed and their numbers.

    Args:
        folder: Where files are made; new.
        seed: Decides all inputs.
        only: Readers whose names hold this.
    """

    def __init__(self, folder: Path, seed: int, only: str = "") -> None:
        self._seed, self._inputs = seed, folder / "inputs"
        with contextlib.redirect_stdout(io.StringIO()):
            self._readers = [one for one in make_readers(folder / "valid") if only in one.name]
        self._shares = [one.share for one in self._readers]
        self._outside = folder / "outside"
        self._outside.mkdir()
        self._before = self._state(folder)
        self._folder = folder
        logging.disable(logging.CRITICAL)
        warnings.simplefilter("ignore")

    def make(self, number: int) -> tuple[Reader, str, bytes]:
        """The reader of an input, the name of its file, and its content."""
        random = Random(f"{self._seed}:{number}")
        (reader,) = random.choices(self._readers, self._shares)
        name, content = random.choice(list(reader.files))
        return reader, name, mutated(content, random, reader.structured)

    def valid(self) -> Iterator[tuple[str, str]]:
        """Reads every file unchanged; what goes wrong with which, as all must be read."""
        for reader in self._readers:
            for name, content in reader.files:
                outcome = Outcome()
                self._try(0, reader, name, content, outcome)
                if not sum(outcome.read.values()):
                    yield f"{reader.name}, {name}", str(outcome.failures or dict(outcome.refused))

    def run(self, numbers: Sequence[int]) -> Outcome:
        """Read these inputs."""
        outcome = Outcome()
        _bound_memory()
        for count, number in enumerate(numbers):
            self._try(number, *self.make(number), outcome)
            if count % 50 == 49:
                gc.collect()
        if self._state(self._folder) != self._before:
            outcome.failures.append((numbers[-1], "all of them", "something was written outside of the inputs' folder"))
        outcome.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return outcome

    def _try(self, number: int, reader: Reader, name: str, content: bytes, outcome: Outcome) -> None:
        shutil.rmtree(self._inputs, ignore_errors=True)
        folder = self._inputs / "deep" / "input"
        folder.mkdir(parents=True)
        path, began = reader.lay_out(folder, name, content), time.monotonic()
        signal.signal(signal.SIGALRM, _hang)
        signal.setitimer(signal.ITIMER_REAL, LONGEST)
        try:
            with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
                reader.read(folder, path)
            outcome.read[reader.name] += 1
            if out.getvalue() or err.getvalue():
                outcome.failures.append(
                    (number, f"{reader.name}, {name}", f"it printed: {(out.getvalue() + err.getvalue())[:300]!r}")
                )
        except (Blip2TrainError, UnusableSample) as error:
            outcome.refused[reader.name] += 1
            message = str(error).replace(str(folder), "…")
            if isinstance(error, Blip2TrainError) and (len(message) > LONGEST_MESSAGE or not message.strip()):
                outcome.failures.append(
                    (number, f"{reader.name}, {name}", f"a message of {len(message)}: {message[:300]!r}")
                )
        except BaseException as error:  # of any kind: what stands above is all that may come
            signal.setitimer(signal.ITIMER_REAL, 0)
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            last = traceback.extract_tb(error.__traceback__)[-1]
            own = [one for one in traceback.extract_tb(error.__traceback__) if "blip2_train/" in one.filename]
            where = f"{own[-1].filename.partition('blip2_train/')[2]}:{own[-1].lineno}" if own else last.filename
            message = f"{type(error).__name__} at {where}: {str(error)[:200]!r}"
            outcome.failures.append((number, f"{reader.name}, {name}", message))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        outcome.slowest = max(outcome.slowest, time.monotonic() - began)
        left = {entry.name for entry in self._inputs.iterdir()} | {
            entry.name for entry in (self._inputs / "deep").iterdir()
        }
        if left != {"deep", "input"}:
            outcome.failures.append((number, f"{reader.name}, {name}", f"written beside its folder: {sorted(left)}"))

    def _state(self, folder: Path) -> set[tuple[str, int]]:
        files = (path for path in folder.rglob("*") if not path.is_relative_to(self._inputs) and path.is_file())
        return {(str(path), path.stat().st_size) for path in files}


def _hang(number: int, frame: FrameType | None) -> None:
    raise Hang(f"more than {LONGEST} s")


def _bound_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
