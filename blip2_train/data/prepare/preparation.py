"""Makes shards of a source, resumably: examines every sample, decides which are used, and writes these."""

from __future__ import annotations

import hashlib
import heapq
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import msgspec
import numpy as np
import PIL
from numpy.typing import NDArray

from blip2_train.data.prepare.destination import Destination
from blip2_train.data.prepare.engine import Engine
from blip2_train.data.prepare.examination import Examination
from blip2_train.data.prepare.journal import Journal, find_duplicates
from blip2_train.data.prepare.new_captions import NewCaptions
from blip2_train.data.prepare.options import ShardOptions
from blip2_train.data.prepare.packing import PackedShard, Packing, ShardTask
from blip2_train.data.shards.shard_lists import INDEX
from blip2_train.data.sources.source import PairSource
from blip2_train.errors import ShardError
from blip2_train.system.atomic_write import parse_checked, read_checked, write_checked
from blip2_train.system.records import Count, JsonObject, check_record
from blip2_train.types import RejectedSample

REJECTED = "rejected.jsonl"
UNFINISHED, _PARTS = ".preparing", "parts-"
_VERSION = 2
"""Version of the output; increased when the same settings give other bytes."""

Progress = Callable[[str, int, int], None]
"""Called with the name of the step, the number of completed samples, and the number of all."""


class _Index(msgspec.Struct):
    settings: JsonObject
    samples: Count
    bytes: Count
    rejected: dict[str, Count]
    shards: list[PackedShard]


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """Shards of one source in one folder.

    Each sample is read twice: to examine it, and to write it into its shard. So the content of a shard follows from
    the source and the options alone, for any number of processes and interruptions; each process holds one image at a
    time, and 25 bytes are stored per sample.

    Attributes:
        source: source of the samples.
        folder: folder of shards, `index.json` and `rejected.jsonl`; for a remote destination, its local folder.
        options: options of the shards.
        new_captions: new captions for the samples; None = they keep theirs.
        excluded: names of images that must not be used, see `read_exclusions`.
        destination: destination of finished files; None = `folder`.
    """

    source: PairSource
    folder: Path
    options: ShardOptions
    new_captions: NewCaptions | None = None
    excluded: frozenset[str] = frozenset()
    destination: Destination | None = None

    def run(self, engine: Engine, progress: Progress) -> dict[str, Any]:
        """Make the shards that do not exist yet, and return the content of `index.json`.

        Raises:
            ShardError: if the folder has other content, no sample is usable, or a file cannot be read or written.
        """
        settings = self._settings()
        try:
            return self._finished(settings) or self._make(settings, engine, progress)
        except OSError as error:
            raise ShardError(f"{error.filename or self._to} cannot be written: {error.strerror or error}") from None

    @property
    def _to(self) -> Destination:
        return self.destination or Destination(self.folder)

    def _settings(self) -> dict[str, Any]:
        """Plain values that determine every byte of the result."""
        excluded = hashlib.sha256("\n".join(sorted(self.excluded)).encode(errors="backslashreplace")).hexdigest()
        return {
            "version": _VERSION,
            "source": self.source.name,
            "source_samples": len(self.source),
            "source_hash": self.source.fingerprint(),
            "excluded_names": len(self.excluded),
            "excluded_hash": excluded[:16],
            **asdict(self.options),
            "pillow": PIL.__version__,
            **(self.new_captions.settings if self.new_captions else {}),
        }

    def _finished(self, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """The index, if the folder already has all shards for these settings; else None."""
        if (content := self._to.text(INDEX)) is None:
            return None
        path, again = f"{self._to}/{INDEX}", f"remove {self._to}, and make the shards again"
        index = parse_checked(content, path, again)
        check_record(index, _Index, path, again, ShardError)
        self._compare(index["settings"], settings)
        sizes = self._to.sizes()
        for shard in index["shards"]:
            if sizes.get(shard["file"]) != shard["bytes"]:
                shard_path = f"{self._to}/{shard['file']}"
                raise ShardError(
                    f"{shard_path} has another size than {INDEX} lists; remove {self._to}, and make the shards again"
                )
        shutil.rmtree(self.folder / UNFINISHED, ignore_errors=True)  # a killed process may have left it
        return index

    def _compare(self, before: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        for name, value in settings.items():
            if before.get(name) != value:
                raise ShardError(
                    f"{self._to} holds shards made with {name} {before.get(name)!r}, now it is {value!r}; give "
                    "another output, or remove it"
                )

    def _make(self, settings: Mapping[str, Any], engine: Engine, progress: Progress) -> dict[str, Any]:
        work = self.folder / UNFINISHED
        if not work.is_dir() and (self._to.sizes() or (self.folder.is_dir() and any(self.folder.iterdir()))):
            raise ShardError(f"{self._to} is not empty; give another output")
        work.mkdir(parents=True, exist_ok=True)
        with self._to.alone(work):
            self._check_settings(work / "settings.json", settings)
            for left_over in work.glob(f"{_PARTS}*"):
                shutil.rmtree(left_over, ignore_errors=True)
            # A new folder, so that a worker that briefly outlives its killed parent does no harm.
            parts = Path(mkdtemp(prefix=_PARTS, dir=work))
            journal = Journal(work, len(self.source))
            self._examine(journal, engine, progress)
            duplicates, first_indices = self._duplicates(journal)
            rejected = self._write_rejected(journal, duplicates, first_indices)
            verdicts = journal.verdicts()
            usable = verdicts["good"].astype(bool)
            usable[duplicates] = False
            used = np.flatnonzero(usable)
            source = self.new_captions.run(self.source, used, work, progress) if self.new_captions else self.source
            packed = Preparation(**vars(self) | {"source": source})
            shards = packed._pack(used, verdicts, parts, engine, progress)
            index = {
                "settings": dict(settings),
                "samples": sum(shard.samples for shard in shards),
                "bytes": sum(shard.bytes for shard in shards),
                "rejected": dict(sorted(rejected.items())),
                "shards": [asdict(shard) for shard in shards],
            }
            write_checked(self.folder / INDEX, index)
            for name in (REJECTED, INDEX):  # the index comes last: if it exists, everything exists
                self._to.put(self.folder / name)
        shutil.rmtree(work)
        return index

    def _check_settings(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Refuse to continue a preparation that was started with other settings."""
        if path.is_file():
            self._compare(read_checked(path, f"remove {self.folder}, and make the shards anew"), settings)
        else:
            write_checked(path, settings, indent=None)

    def _examine(self, journal: Journal, engine: Engine, progress: Progress) -> None:
        examination = Examination(self.source, self.options, self.excluded)
        for examined in engine(examination, journal.chunks()):
            journal.append(examined)
            progress("examine", journal.examined, len(self.source))

    def _duplicates(self, journal: Journal) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if self.options.duplicates == "keep":
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        return find_duplicates(journal.verdicts())

    def _write_rejected(
        self, journal: Journal, duplicates: NDArray[np.int64], first_indices: NDArray[np.int64]
    ) -> Counter[str]:
        """List what is not used: first the records from opening the source, then samples in their order."""
        counts: Counter[str] = Counter()
        one_by_one = heapq.merge(journal.rejected(), self._repeated(duplicates, first_indices), key=lambda one: one[0])
        unfinished = self.folder / UNFINISHED / "all_rejected.jsonl"
        with unfinished.open("w", encoding="utf-8") as file:
            for sample in chain(self.source.rejected, (sample for _, sample in one_by_one)):
                counts[sample.reason] += 1
                file.write(json.dumps(asdict(sample)) + "\n")
        unfinished.replace(self.folder / REJECTED)
        return counts

    def _repeated(
        self, duplicates: NDArray[np.int64], first_indices: NDArray[np.int64]
    ) -> Iterator[tuple[int, RejectedSample]]:
        for index, first in zip(duplicates.tolist(), first_indices.tolist(), strict=True):
            location, earlier = self.source.sample_location(index), self.source.sample_location(first)
            detail = f"the same file as {earlier.file}: {earlier.key}"
            yield index, RejectedSample(source=location.file, key=location.key, reason="duplicate", detail=detail)

    def _pack(
        self, used: NDArray[np.int64], verdicts: NDArray[np.void], parts: Path, engine: Engine, progress: Progress
    ) -> list[PackedShard]:
        """Write the shards that do not exist yet, and record each one."""
        if not len(used):
            raise ShardError(
                f"no sample of {self.source.name} can be used; the reasons are in {self.folder / REJECTED}"
            )
        finished_list = parts.with_name("shards.jsonl")
        finished = _read_finished(finished_list)
        size = self.options.samples_per_shard
        tasks = (
            ShardTask(
                shard_index=shard_index,
                samples=(indices := used[shard_index * size : (shard_index + 1) * size]),
                verdicts=verdicts[indices],
                finished=finished.get(shard_index),
            )
            for shard_index in range(-(-len(used) // size))
        )
        shards: list[PackedShard] = []
        done = 0
        for shard in engine(Packing(self.source, self.options, self._to, parts), tasks):
            if shard != finished.get(len(shards)):
                with finished_list.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"number": len(shards), **asdict(shard)}) + "\n")
            shards.append(shard)
            done += shard.samples
            progress("write", done, len(used))
        return shards


def _read_finished(path: Path) -> dict[int, PackedShard]:
    """The finished shards, by index; an incomplete last line of a killed process is skipped."""
    finished = {}
    for line in path.read_text(encoding="utf-8").split("\n") if path.is_file() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        shard_index = entry.pop("number")
        finished[shard_index] = PackedShard(**entry)
    return finished
