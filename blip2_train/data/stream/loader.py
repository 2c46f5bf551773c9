"""The data loader of training and validation."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from multiprocessing.connection import wait
from typing import Any

import torch
from torch.utils.data import DataLoader

from blip2_train.errors import ShardError, TrainingError
from blip2_train.types import Batch

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""Signals that stop a whole run; a terminal sends the one of Ctrl-C to readers, too."""
_NO_SHARED_MEMORY = ("unable to allocate shared memory", "unable to write to file </torch_", "unable to resize file <")
PREFETCHED = 2
"""Batches that a reader prepares in advance, at most, however slow the training is."""


def start_fork_server() -> None:
    """Start the server process from which readers are forked; it imports this process's data modules in the background.

    A reader then starts in a fraction of a second. As the server has no threads, a reader inherits no lock that a
    thread held (a fork of the training process could). Signals by which a scheduler stops all processes of a run end
    neither the server nor the readers: they end with the training process.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {
            signal_number: signal.signal(signal_number, signal.SIG_IGN) for signal_number in _STOP_SIGNALS
        }  # the server inherits this
    loaded = [name for name in sys.modules if name.startswith("blip2_train.data") or ".tokenization_" in name]
    multiprocessing.get_context("forkserver").set_forkserver_preload(loaded)
    forkserver.ensure_running()
    for signal_number, handler in before.items():
        signal.signal(signal_number, handler or signal.SIG_DFL)


class BatchLoader(DataLoader[Any]):
    """torch's loader, with readers forked from the fork server, and data errors in one line.

    The generator of worker seeds is the loader's own, so that creating an iterator draws nothing from the global
    generator; no reader uses either of them.

    Args:
        dataset: map-style dataset.
        num_workers: reader processes; 0 reads in the training process.
        finish: applied to each batch in the training process; None = nothing.
        options: further options of torch's loader.
    """

    def __init__(
        self, dataset: Any, *, num_workers: int, finish: Callable[[Batch], Batch] | None = None, **options: Any
    ) -> None:
        if num_workers > 0:
            options |= {"multiprocessing_context": "forkserver", "worker_init_fn": _start_reader}
            options |= {"persistent_workers": True, "prefetch_factor": PREFETCHED}
        self._finish = finish
        super().__init__(dataset, num_workers=num_workers, generator=torch.Generator(), **options)

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Iterate; an error in a reader is raised again with its own one-line message.

        Raises:
            ShardError: as a reader raised it.
            TrainingError: if a reader was killed, or shared memory is full.
        """
        failure: ShardError | TrainingError | None = None
        try:
            for item in super().__iter__():
                yield self.finished(item)
        except ShardError as error:
            failure = ShardError(str(error).strip().splitlines()[-1].rpartition("ShardError: ")[2])
            error.with_traceback(None)  # its frames hold the readers, which would then stop late, after a time-out
        except (RuntimeError, OSError, EOFError) as error:
            if (message := self._reader_failure(error)) is None:
                raise
            failure = TrainingError(message)
            error.with_traceback(None)
        if failure is not None:
            self._iterator = None
            raise failure

    def finished(self, item: Any) -> Any:
        """What is returned for what the collator made."""
        return item if self._finish is None else self._finish(item)

    def _reader_failure(self, error: Exception) -> str | None:
        """The message if an error of torch's loader means that a reader ended or shared memory is full; else None.

        A reader that dies while this process fetches its tensor breaks the connection, with one of many errors.
        """
        full = any(text in str(error) for text in _NO_SHARED_MEMORY)
        readers = getattr(self._iterator, "_workers", [])
        if isinstance(error, OSError | EOFError):  # may be raised before the fork server reports the end of the reader
            wait([reader.sentinel for reader in readers], timeout=2)
        signals = {-reader.exitcode for reader in readers if reader.exitcode is not None}
        if not full and not signals:
            return None
        cause = next((n for n in (signal.SIGBUS, signal.SIGSEGV, signal.SIGKILL) if n in signals), None)
        why = (
            "found no room in shared memory for what it had read"
            if full or cause == signal.SIGBUS
            else "crashed (SIGSEGV) in a library that reads data"
            if cause == signal.SIGSEGV
            else "was killed (SIGKILL), mostly by the system for want of memory"
            if cause == signal.SIGKILL
            else "ended unexpectedly, perhaps killed by the system for want of memory"
        )
        return (
            f"a data reader (one of {self.num_workers} of this process) {why}: lower data.num_workers (0 reads without "
            f"readers), give the run more memory{_shared_memory()}; a run that has a checkpoint goes on with "
            "resume_from=last"
        )


def _shared_memory() -> str:
    """The size of shared memory, as part of an advice; "" if it is unknown."""
    try:
        size = shutil.disk_usage("/dev/shm")
    except OSError:
        return ""
    return (
        f", or more shared memory (/dev/shm has {size.free / 2**30:.1f} of {size.total / 2**30:.1f} GiB free; in a "
        "container --shm-size)"
    )


def _start_reader(_: int) -> None:
    """Prepare a reader: no tokenizer threads, which would compete with other readers, and an end with its parent."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # macOS has none, and no such schedulers
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_by_parent, daemon=True).start()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_by_parent() -> None:
    """End on SIGTERM from the training process; ignore that of a scheduler, as the training process still reads."""
    parent = multiprocessing.parent_process()
    while parent is None or signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(0)


def _end_with_parent() -> None:
    """End this reader when the training process ends, also by SIGKILL.

    torch watches its parent, but the parent of a reader is the fork server, which lives as long as its readers do:
    without this thread, both would outlive a killed training process.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
