"""Predictions on disk, batch by batch as they come, so that an evaluation that was stopped goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from blip2_train.distributed import gather_objects, rank
from blip2_train.errors import ConfigError, DamagedFile
from blip2_train.evaluation.task import Row
from blip2_train.system.atomic_write import agrees, read_checked, with_checksum, write_checked
from blip2_train.system.records import Count, JsonObject, check_record, parse_record


class _Batch(msgspec.Struct):
    batch: Count
    rows: list[Row]


class PredictionLog:
    """The finished batches of one task, in `<folder>/<task>.<process>.jsonl`: a line for each.

    A line that was being written when the process died, or that does not fit its checksum, counts as not written.

    Args:
        folder: Folder of the predictions.
        task: Its name.
        settings: The values that decide the predictions; stored beside them.

    Raises:
        ConfigError: if the folder holds predictions that were made with other settings.
    """

    def __init__(self, folder: Path, task: str, settings: Mapping[str, Any]) -> None:
        self._folder, self._task = folder, task
        problem = self._begin(settings) if rank() == 0 else None
        if problem := gather_objects(problem)[0]:
            raise ConfigError(problem)
        self._own = folder / f"{task}.{rank()}.jsonl"
        self.done = frozenset(number for number, _ in self._read())
        """Indices of the batches that any process has finished."""
        gather_objects(None)  # no process writes before all have read

    def __enter__(self) -> Self:
        _end_last_line(self._own)
        self._file = self._own.open("a", encoding="utf-8", errors="backslashreplace")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, batch: int, rows: Sequence[Row]) -> None:
        """Keep the rows of a batch."""
        line = with_checksum({"batch": batch, "rows": list(rows)})
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()

    def rows(self) -> list[Row]:
        """The rows of all batches of all processes, in the order of batches, each batch once."""
        finished = dict(self._read())
        return [row for number in sorted(finished) for row in finished[number]]

    def _begin(self, settings: Mapping[str, Any]) -> str | None:
        """Write the settings, or compare them with those that are there."""
        path, own = self._folder / f"{self._task}.settings.json", json.loads(json.dumps(settings))
        if not path.is_file():
            write_checked(path, own)
            return None
        try:
            stored = read_checked(path, f"remove it, and the {self._task}.*.jsonl beside it, to predict anew")
        except DamagedFile as error:
            return str(error)
        changed = [key for key in sorted(stored.keys() | own.keys()) if stored.get(key) != own.get(key)]
        if not changed:
            return None
        first = changed[0]
        return (
            f"{path} was made with {first} {stored.get(first)!r}, this evaluation has {own.get(first)!r}; give it "
            "another folder (paths.run_dir), or remove that one"
        )

    def _read(self) -> Iterator[tuple[int, list[Row]]]:
        for path in sorted(self._folder.glob(f"{self._task}.*.jsonl")):
            for line in path.read_bytes().split(b"\n"):
                try:
                    entry = parse_record(line, JsonObject, path, "", DamagedFile)
                    batch = check_record(entry, _Batch, path, "", DamagedFile)
                except DamagedFile:
                    continue
                if agrees(entry):
                    yield batch.batch, batch.rows


def _end_last_line(path: Path) -> None:
    """Begin a new line after one that was cut off."""
    if path.is_file() and (content := path.read_bytes()) and not content.endswith(b"\n"):
        with path.open("ab") as file:
            file.write(b"\n")
