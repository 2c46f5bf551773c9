"""Writes the features of a data set, resumably: lists the images, states what they will take, writes the shards."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blip2_train.data.features.image_keys import CROPS, EVALUATION, Stored, table_rows
from blip2_train.data.features.layout import FeatureLayout
from blip2_train.data.features.samples import ImageListing, Samples, different_images
from blip2_train.data.features.settings import FeatureSettings
from blip2_train.data.features.store import IMAGES, read_index
from blip2_train.data.features.writing import CropRule, Encode, FeatureShard, FeatureTask, FeatureWriting
from blip2_train.data.prepare.destination import Destination
from blip2_train.data.prepare.engine import Engine
from blip2_train.data.prepare.journal import Journal
from blip2_train.data.prepare.preparation import REJECTED, UNFINISHED, Progress
from blip2_train.data.shards.shard_lists import INDEX
from blip2_train.errors import ShardError
from blip2_train.system.atomic_write import read_checked, write_checked
from blip2_train.types import RejectedSample

_PARTS = "parts-"


@dataclass(frozen=True)
class Amount:
    """What is to be stored."""

    images: int
    """Different images."""
    crops: int
    """Crops in all."""
    bytes: int
    """Of all shards."""
    left: int
    """Crops that are not stored yet."""


@dataclass(frozen=True, kw_only=True)
class FeaturePreparation:
    """The features of a run's images, in one local folder.

    Attributes:
        samples: The samples whose images they are.
        folder: Folder of the shards, `images.npy`, `index.json` and `rejected.jsonl`.
        settings: What the features depend on.
        rule: How crops are made.
        encode: The tower; picklable.
        batch_size: Crops at once.
        threads: Images that a process reads and decodes at once.
    """

    samples: Samples
    folder: Path
    settings: FeatureSettings
    rule: CropRule
    encode: Encode
    batch_size: int
    threads: int

    @property
    def layout(self) -> FeatureLayout:
        """How features are stored."""
        settings = self.settings
        return FeatureLayout(
            patches=settings.patches, width=settings.width, dtype=settings.tower["dtype"], bits=settings.bits
        )

    def run(
        self, engine: Engine, writer: Engine, progress: Progress, before: Callable[[Amount], None]
    ) -> dict[str, Any]:
        """Write the shards that do not exist yet, and return the content of `index.json`.

        Args:
            engine: Lists the images.
            writer: Computes the features.
            progress: Called with the name of the step, the number of completed images, and the number of all.
            before: Called once it is known what is to be stored, before any of it is; may raise an error.

        Raises:
            ShardError: if the folder has other content, no image is usable, or a file cannot be read or written.
        """
        try:
            if (self.folder / INDEX).is_file():
                index = read_index(self.folder)
                self._compare(index["settings"])
                shutil.rmtree(self.folder / UNFINISHED, ignore_errors=True)  # a killed process may have left it
                return index
            return self._make(engine, writer, progress, before)
        except OSError as error:
            raise ShardError(f"{error.filename or self.folder} cannot be written: {error.strerror or error}") from None

    def _make(
        self, engine: Engine, writer: Engine, progress: Progress, before: Callable[[Amount], None]
    ) -> dict[str, Any]:
        work = self.folder / UNFINISHED
        if not work.is_dir() and self.folder.is_dir() and any(self.folder.iterdir()):
            raise ShardError(f"{self.folder} is not empty; give another output")
        work.mkdir(parents=True, exist_ok=True)
        with Destination(self.folder).alone(work):
            stated = work / "settings.json"
            if stated.is_file():
                self._compare(read_checked(stated, f"remove {self.folder}, and write the features anew"))
            else:
                write_checked(stated, asdict(self.settings), indent=None)
            for left_over in work.glob(f"{_PARTS}*"):
                shutil.rmtree(left_over, ignore_errors=True)
            journal = Journal(work, len(self.samples))
            for examined in engine(ImageListing(self.samples), journal.chunks()):
                journal.append(examined)
                progress("list", journal.examined, len(self.samples))
            verdicts = journal.verdicts()
            images, flags = different_images(verdicts, self.samples.flags())
            shards = self._write(images, flags, np.asarray(verdicts["digest"])[images], work, writer, progress, before)
            index = self._finish(shards, journal, images, flags, np.asarray(verdicts["digest"])[images])
        shutil.rmtree(work)
        return index

    def _compare(self, earlier: Mapping[str, Any]) -> None:
        if (difference := self.settings.difference(earlier)) is not None:
            raise ShardError(
                f"{self.folder} holds features made with {difference}; give another output, or remove {self.folder}"
            )

    def _write(
        self,
        images: NDArray[np.int64],
        flags: NDArray[np.uint8],
        digests: NDArray[np.uint64],
        work: Path,
        writer: Engine,
        progress: Progress,
        before: Callable[[Amount], None],
    ) -> list[FeatureShard]:
        """Write the shards that do not exist yet, and record each one."""
        if not len(images):
            raise ShardError(f"no image can be read; the reasons are in {work / REJECTED}")
        finished_list, size = work / "shards.jsonl", self.settings.images_per_shard
        finished = _read_finished(finished_list)
        crops = np.where(flags & CROPS, self.settings.crops, 0) + np.where(flags & EVALUATION, 1, 0)
        done = sum(shard.crops for shard in finished.values())
        total = int(crops.sum())
        before(Amount(len(images), total, total * self.layout.stride, total - done))
        # A new folder, so that a worker that briefly outlives its killed parent does no harm.
        parts = Path(mkdtemp(prefix=_PARTS, dir=work))
        work_of_shard = FeatureWriting(
            self.samples,
            self.rule,
            self.layout,
            self.encode,
            batch_size=self.batch_size,
            threads=self.threads,
            folder=self.folder,
            unfinished=parts,
        )
        rows = [slice(first, first + size) for first in range(0, len(images), size)]
        tasks = (
            FeatureTask(
                shard_index=shard_index,
                samples=images[own],
                flags=flags[own],
                digests=digests[own],
                finished=finished.get(shard_index),
            )
            for shard_index, own in enumerate(rows)
        )
        shards: list[FeatureShard] = []
        for shard in writer(work_of_shard, tasks):
            if shard != finished.get(len(shards)):
                with finished_list.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"number": len(shards), **asdict(shard)}) + "\n")
            shards.append(shard)
            progress("encode", min(len(shards) * size, len(images)), len(images))
        return shards

    def _finish(
        self,
        shards: list[FeatureShard],
        journal: Journal,
        images: NDArray[np.int64],
        flags: NDArray[np.uint8],
        digests: NDArray[np.uint64],
    ) -> dict[str, Any]:
        """Write the table of images, the list of what is rejected, and the index, which comes last."""
        counts: Counter[str] = Counter()
        size = self.settings.images_per_shard
        stored: list[Stored] = []
        unreadable = [one for shard in shards for _, one in shard.unreadable]
        with (self.folder / UNFINISHED / "all_rejected.jsonl").open("w", encoding="utf-8") as file:
            for sample in [*(one for _, one in journal.rejected()), *unreadable]:
                counts[sample.reason] += 1
                file.write(json.dumps(asdict(sample)) + "\n")
        for number, shard in enumerate(shards):
            member, faulty = 0, {row for row, _ in shard.unreadable}
            for row, flag in enumerate(flags[number * size : (number + 1) * size].tolist()):
                flag = 0 if row in faulty else flag
                stored.append(Stored(number, member, flag))
                member += (self.settings.crops if flag & CROPS else 0) + (1 if flag & EVALUATION else 0)
        table = self.folder / UNFINISHED / IMAGES
        np.save(table, table_rows(digests, stored))
        table.replace(self.folder / IMAGES)
        (self.folder / UNFINISHED / "all_rejected.jsonl").replace(self.folder / REJECTED)
        index = {
            "settings": asdict(self.settings),
            "images": len(images) - len(unreadable),
            "crops": sum(shard.crops for shard in shards),
            "bytes": sum(shard.bytes for shard in shards),
            "rejected": dict(sorted(counts.items())),
            "shards": [{name: getattr(shard, name) for name in ("file", "bytes", "sha256")} for shard in shards],
        }
        write_checked(self.folder / INDEX, index)
        return index


def _read_finished(path: Path) -> dict[int, FeatureShard]:
    """The finished shards, by index; an incomplete last line of a killed process is cut off, before lines follow it."""
    finished: dict[int, FeatureShard] = {}
    if not path.is_file():
        return finished
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    for line in whole.split(b"\n"):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        shard_index = entry.pop("number")
        rows = tuple((row, RejectedSample(**sample)) for row, sample in entry.pop("unreadable"))
        finished[shard_index] = FeatureShard(**entry, unreadable=rows)
    return finished
