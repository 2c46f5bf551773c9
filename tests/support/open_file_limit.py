"""How many files a process may have open, for tests."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

from fork_server import stop_fork_server


@contextmanager
def open_files_at_most(count: int) -> Iterator[None]:
    """Let this process, and those it starts, have only so many files open, as `ulimit -n` does."""
    stop_fork_server()  # one of an earlier test has that one's limit
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        stop_fork_server()
