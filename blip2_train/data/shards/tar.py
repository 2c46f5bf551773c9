"""Finds the samples of a tar shard by its headers alone."""

from __future__ import annotations

import tarfile
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from blip2_train.data.printable_names import printable_name
from blip2_train.data.storage.remote import AnyFile, RemoteFile, Storage
from blip2_train.types import RejectedSample

IMAGES = ("jpg", "jpeg", "png", "webp")
"""Extensions of images that every reader of shards knows."""
MORE_IMAGES = ("gif", "bmp", "tif", "tiff", "avif")
"""Extensions of images that are used if a sample has none of the usual ones."""
ROW_FIELDS = (*(part + what for part in ("picture", "text", "json") for what in ("", "_size")), "key")
"""Fields of an index row."""
_BLOCK = 512

Shard = AnyFile
"""A tar file."""
Member = tuple[str, int, int]
"""Extension (everything after the first dot), offset of the content in bytes, length in bytes."""
SampleRow = tuple[int, int, int, int, int, int, bytes]
"""Values of `ROW_FIELDS`."""


def scan_shard(path: Shard, storage: Storage | None = None) -> tuple[NDArray[np.void], list[RejectedSample]]:
    """Find the samples of a shard without reading their contents.

    Members whose names agree up to the first dot of the last path part are one sample (webdataset's rule); the last
    extension determines the kind of a member. If one sample would have two images or two texts (`img.v1.jpg`,
    `img.v2.jpg`), names are compared up to the last dot instead. Damage ends the shard: samples before it are used. Of
    joined tar files (`cat`), all are read; a key repeated in a later archive, with the same members, gets the number of
    that archive as suffix.

    Args:
        path: tar file.
        storage: how remote storage is accessed; a remote shard is read once from start to end.

    Returns:
        One row per usable sample, in order, with the fields `picture`, `text`, `json` (offsets in bytes, -1 = absent),
        `picture_size`, `text_size`, `json_size` (bytes) and `key` (UTF-8); and the rejected samples.
    """
    size, file = _open(path, storage or Storage())
    with file:
        headers = _Headers(file, size)
    members, damage, source = headers.members, headers.damage, printable_name(str(path))
    rejected = [
        RejectedSample(source=source, key=key, reason=reason, detail=detail)
        for (key, reason), detail in headers.refused.items()
    ]
    rows: list[SampleRow] = []
    last = next(reversed(members)) if members and damage else None
    for key, parts in members.items():
        try:
            rows += samples_of(key, parts)
        except IncompleteSample as problem:
            if key != last:  # the last sample of a damaged shard is part of the damage
                rejected.append(
                    RejectedSample(source=source, key=key, reason=str(problem), detail=member_list(key, parts))
                )
    if damage is not None:
        detail = f"{damage[1]}; {len(rows)} samples usable"
        rejected.append(RejectedSample(source=source, key="", reason=damage[0], detail=detail))
    width = max((len(row[-1]) for row in rows), default=1)
    fields = [(name, np.int64) for name in ROW_FIELDS[:-1]]
    return np.array(rows, dtype=[*fields, ("key", f"S{width}")]), rejected


UNSAFE, DUPLICATE = "unsafe name", "duplicate key"
"""Reasons for which a member is rejected by its name alone."""


class MemberName(NamedTuple):
    """The parts of a tar member's name."""

    name: str
    key: str
    extension: str
    """Everything after the first dot of the last part."""
    safe: bool
    """Whether it stays inside a folder into which the shard is unpacked."""

    def leads_out(self) -> str:
        """Detail of the rejection of an unsafe name."""
        return f"{self.name} leads out of the shard"

    def comes_again(self) -> str:
        """Detail of the rejection of a repeated name."""
        return f"{self.name} comes again; the first is used"


def member_name(name: str) -> MemberName | None:
    """The parts of a member's name; None if it belongs to no sample."""
    name = printable_name(name)
    folder, (key, _, extension) = PurePosixPath(name).parent, Path(name).name.partition(".")
    if not key or not extension:
        return None
    safe = not (folder.is_absolute() or ".." in folder.parts)
    return MemberName(name, key if str(folder) == "." else f"{folder}/{key}", extension, safe)


class IncompleteSample(Exception):
    """The members of a key do not make a sample."""


def _open(shard: Shard, storage: Storage) -> tuple[int, BinaryIO]:
    """Size of a shard in bytes, and the opened shard."""
    if isinstance(shard, RemoteFile):
        return shard.size, storage.open(shard)
    return shard.stat().st_size, shard.open("rb")


class _Headers:
    """The members of a shard, archive by archive: tar files joined by `cat` are several archives in one file.

    A name that leads out of the folder into which a shard is unpacked is rejected, though nothing is unpacked here.

    Args:
        file: the shard.
        size: its size in bytes.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self.members: dict[str, list[Member]] = {}
        """Members by key."""
        self.refused: dict[tuple[str, str], str] = {}
        """Details of rejected members, by key and reason."""
        self.damage: tuple[str, str] | None = None if size else ("empty file", "the file has no bytes")
        """Reason and detail of the damage that ends the shard early; None if there is none."""
        start, archive = (0 if size else None), 0
        while start is not None:
            archive += 1
            start = self._read_archive(start, archive)

    def _read_archive(self, start: int, archive: int) -> int | None:
        """Find the members of the archive at offset `start`; returns the offset of the next archive, None = no more."""
        by_key: dict[str, list[Member]] = {}
        self._file.seek(start)
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as tar:
                while (member := tar.next()) is not None and self._take(member, by_key):
                    tar.members.clear()  # type: ignore[attr-defined]  # else tarfile keeps a record of every member
                end = tar.offset
        except (tarfile.TarError, EOFError, ValueError) as error:
            reason = (
                "damaged shard" if archive > 1 and not by_key else "truncated shard" if by_key else "not a tar file"
            )
            behind = f"behind the end mark, at byte {start}: " if archive > 1 else ""
            self.damage = reason, f"{behind}{error}"
        self._join(by_key, archive)
        if self.damage is not None:
            return None
        if archive > 1 and end == start:  # tarfile does not report a file that begins with no header
            self.damage = "damaged shard", f"the content behind the end mark, at byte {start}, is no tar file"
        else:
            self.damage = _damage_at(self._file, end)
        return None if self.damage else _next_content(self._file, end)

    def _take(self, member: tarfile.TarInfo, by_key: dict[str, list[Member]]) -> bool:
        """Add a member; returns False if it ends after the file."""
        if member.offset_data + member.size > self._size:
            self.damage = "truncated shard", f"{printable_name(member.name)} ends after the file"
            return False
        name = member_name(member.name) if member.isreg() else None
        if name is None:
            return True
        if not name.safe:
            self.refused.setdefault((name.key, UNSAFE), name.leads_out())
            return True
        members = by_key.setdefault(name.key, [])
        if any(name.extension == other for other, _, _ in members):
            self.refused.setdefault((name.key, DUPLICATE), name.comes_again())
        else:
            members.append((name.extension, member.offset_data, member.size))
        return True

    def _join(self, by_key: dict[str, list[Member]], archive: int) -> None:
        """Add the members of an archive. A key of an earlier archive, with the same members, is another sample."""
        for key, members in by_key.items():
            known = self.members.get(key, [])
            if {extension for extension, _, _ in known} & {extension for extension, _, _ in members}:
                self.members[f"{key} ({archive})"] = members
            else:
                self.members[key] = [*known, *members]


def _damage_at(file: BinaryIO, offset: int) -> tuple[str, str] | None:
    """Reason and detail of damage where the headers end; None if a block of zeros is there, as in a whole archive."""
    file.seek(offset)
    block = file.read(_BLOCK)
    if len(block) < _BLOCK:
        return "truncated shard", f"the file stops at byte {offset + len(block)} without an end mark"
    return ("damaged shard", f"no member header at byte {offset}") if block.strip(b"\0") else None


def _next_content(file: BinaryIO, offset: int) -> int | None:
    """Offset of the first non-zero block behind an end mark; None if zeros follow to the end, as tar pads archives."""
    file.seek(offset)
    while chunk := file.read(_BLOCK * 128):
        if content := chunk.lstrip(b"\0"):
            return offset + (len(chunk) - len(content)) // _BLOCK * _BLOCK
        offset += len(chunk)
    return None


def samples_of(key: str, members: list[Member]) -> list[SampleRow]:
    """The samples of a key's members: one, or one per stem if names contain more dots.

    Raises:
        IncompleteSample: with the reason, if there is none.
    """
    kinds = _kinds(members)
    if all(kinds.count(kind) <= 1 for kind in ("picture", "text", "json")):
        return [_sample(key, members)]
    stems: dict[str, list[Member]] = {}
    for member in members:
        stems.setdefault(member[0].rpartition(".")[0], []).append(member)
    samples = []
    for stem, group in stems.items():
        try:
            if len(set(_kinds(group))) == len(group):
                samples.append(_sample(f"{key}.{stem}" if stem else key, group))
        except IncompleteSample:
            continue
    if not samples:
        raise IncompleteSample("ambiguous names")
    return samples


def _sample(key: str, members: list[Member]) -> SampleRow:
    positions = {kind: member[1:] for kind, member in zip(_kinds(members), members, strict=True)}
    if "picture" not in positions:
        raise IncompleteSample(
            "missing image" if "text" in positions or "json" in positions else "neither image nor text"
        )
    if "text" not in positions and "json" not in positions:
        raise IncompleteSample("missing text")
    image, text, extra = (positions.get(kind, (-1, 0)) for kind in ("picture", "text", "json"))
    return (*image, *text, *extra, key.encode())


def _kinds(members: list[Member]) -> list[str]:
    """Kind of each member of a key, by its extension: `picture`, `text`, `json`, or the extension itself."""
    last = [extension.rpartition(".")[2].lower() for extension, _, _ in members]
    images = IMAGES if set(last) & set(IMAGES) else MORE_IMAGES
    known = dict.fromkeys(images, "picture") | {"txt": "text", "json": "json"}
    return [known.get(end, extension) for end, (extension, _, _) in zip(last, members, strict=True)]


def member_list(key: str, members: list[Member]) -> str:
    """The members of a key, for messages."""
    return "members: " + ", ".join(f"{key}.{extension}" for extension, _, _ in members)
