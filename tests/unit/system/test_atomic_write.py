"""Files are whole or not there, and what has changed since it was written is told, never read as a value."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from blip2_train.errors import DamagedFile, FolderInUse
from blip2_train.system import atomic_folder
from blip2_train.system.atomic_folder import clear_leftovers, replace_folder
from blip2_train.system.atomic_write import read_checked, write_atomically, write_checked
from blip2_train.system.folder_lock import LOCK, lock_folder

RECORD = {"val/recall": 12.5, "name": "Käfer ∞", "shards": [{"file": "a.tar", "bytes": 3}], "nothing": None}


def test_every_flipped_byte_and_every_cut_of_a_record_is_detected(tmp_path: Path) -> None:
    path = write_checked(tmp_path / "results.json", RECORD)
    whole = path.read_bytes()
    assert read_checked(path, "write it again") == RECORD
    untold = []
    for index in range(len(whole)):
        for damaged in (whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :], whole[:index]):
            path.write_bytes(damaged)
            try:
                record = read_checked(path, "write it again")
            except DamagedFile as error:
                assert str(path) in str(error) and "write it again" in str(error) and "\n" not in str(error)
            else:
                assert record == RECORD or "crc32" not in json.loads(damaged), damaged
                untold.append(damaged)
    laid_out = [damaged for damaged in untold if json.loads(damaged).get("crc32") is not None]
    keys = [damaged for damaged in untold if damaged not in laid_out]
    assert len(keys) <= len('"crc32"'), "only a damaged name of the checksum is not told"
    assert all(json.loads(damaged) == json.loads(whole) for damaged in laid_out)


def test_a_record_of_an_earlier_version_has_no_checksum(tmp_path: Path) -> None:
    path = write_atomically(tmp_path / "results.json", json.dumps(RECORD))
    assert read_checked(path, "") == RECORD


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_is_replaced_by_a_finished_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    if not exchanges:  # as on file systems that know no such step
        monkeypatch.setattr(atomic_folder, "_exchanged", lambda one, other: False)
    for content in ("first", "second"):
        (tmp_path / ".export.unfinished").mkdir()
        (tmp_path / ".export.unfinished" / "a").write_text(content)
        replace_folder(tmp_path / ".export.unfinished", tmp_path / "export")
        assert (tmp_path / "export" / "a").read_text() == content
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


@pytest.mark.slow
@pytest.mark.parametrize("exchanges", [True, False])
@pytest.mark.parametrize("step", range(1, 5))
def test_a_kill_at_any_step_of_replacing_leaves_a_whole_folder(tmp_path: Path, exchanges: bool, step: int) -> None:
    """Killed before each change of a name or removal; what is there then, and after the next start, is whole."""
    for name, content in (("export", "older"), (".export.unfinished", "newer")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text(content)
    if (child := os.fork()) == 0:
        steps = iter(range(1, 9))

        def counted(change):  # type: ignore[no-untyped-def]
            def call(*arguments, **options):  # type: ignore[no-untyped-def]
                if next(steps) == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return change(*arguments, **options)

            return call

        os.replace = counted(os.replace)  # type: ignore[assignment]
        atomic_folder.shutil.rmtree = counted(atomic_folder.shutil.rmtree)
        atomic_folder._exchanged = counted(atomic_folder._exchanged if exchanges else lambda one, other: False)
        replace_folder(tmp_path / ".export.unfinished", tmp_path / "export")
        os._exit(0)
    os.waitpid(child, 0)
    if exchanges:
        assert (tmp_path / "export" / "a").is_file(), "there is a whole one at every moment"
    clear_leftovers(tmp_path / "export")
    assert (tmp_path / "export" / "a").read_text() in ("older", "newer")
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_a_lock_names_its_owner_and_ends_with_it(tmp_path: Path) -> None:
    ready, its = os.pipe()
    if (child := os.fork()) == 0:
        with lock_folder(tmp_path, "folder x", "wait"):
            os.write(its, b"1")
            signal.pause()
    os.read(ready, 1)
    with pytest.raises(FolderInUse, match=rf"folder x is in use by process {child} on '.*' since 20.*: wait$"):
        lock_folder(tmp_path, "folder x", "wait").__enter__()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert (tmp_path / LOCK).is_file(), "what a kill leaves"
    with lock_folder(tmp_path, "folder x", "wait"):
        assert str(os.getpid()) in (tmp_path / LOCK).read_text()
    assert list(tmp_path.iterdir()) == []


def test_many_at_once_hold_a_lock_one_at_a_time(tmp_path: Path) -> None:
    """Each takes it again and again, and removes the file each time."""
    children = []
    for _ in range(4):
        if (child := os.fork()) == 0:
            status = 0
            for _ in range(300):
                try:
                    with lock_folder(tmp_path, "folder", "wait"):
                        os.close(os.open(tmp_path / "alone", os.O_CREAT | os.O_EXCL))
                        os.unlink(tmp_path / "alone")
                except FolderInUse:
                    continue
                except OSError:
                    status = 1
            os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
