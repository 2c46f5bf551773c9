"""Addresses that are shell commands, which run only if they were typed on the command line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO, cast

from blip2_train.data.shards.paths import PIPE, expanded_braces
from blip2_train.errors import ConfigError

_allowed: set[str] = set()


def allow_commands(addresses: Iterable[str]) -> None:
    """Allow this process to run the commands of these addresses, with their ranges in braces expanded.

    A program calls this with the addresses typed on its command line, and never with text from a file: otherwise a
    recipe, a list of shards or an index from elsewhere could run any command.

    Args:
        addresses: `pipe:<command>`.
    """
    _allowed.update(addresses)


@dataclass(frozen=True)
class PipeShard:
    """A shard that a command writes to its standard output, run by the shell."""

    address: str
    """`pipe:<command>`."""

    def __str__(self) -> str:
        return self.address

    def open(self) -> PipeStream:
        """Start the command."""
        return PipeStream(self.address)


class PipeStream:
    """The output of a command.

    webdataset's own check of the exit status during reads is disabled: its result depends on whether the command has
    already ended, and the last bytes of the output could be lost.
    """

    def __init__(self, address: str) -> None:
        from webdataset.gopen import gopen_pipe  # late: only commands as shards need webdataset

        self._pipe = gopen_pipe(address, "rb", 1 << 20)
        self._pipe.ignore_errors = True

    def read(self, size: int) -> bytes:
        """The next bytes; empty at the end."""
        return cast(BinaryIO, self._pipe.stream).read(size)

    def close(self) -> None:
        """Stop reading, and wait for the command."""
        self._pipe.close()

    def problem(self) -> str:
        """A message if the command failed, after its output was read to the end; empty if it succeeded."""
        self.close()
        status = self._pipe.proc.returncode
        return f"the command ended with status {status}" if status else ""


def pipe_shards(address: str) -> list[PipeShard]:
    """The shards of an address, which may contain a range in braces.

    Raises:
        ConfigError: if it was not typed on the command line.
    """
    if address not in _allowed:
        raise ConfigError(
            f"{address!r} runs a command, and was not typed on the command line but comes from a file or a default: "
            f"commands from there never run; type data.source=\"'{address}'\" if you want it"
        )
    return [PipeShard(one) for one in expanded_braces(address)]


def is_pipe(address: str) -> bool:
    """Whether an address is a command."""
    return address.startswith(PIPE)
