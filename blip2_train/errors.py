"""Errors a reader can act on: each message names the thing, its value, and what to do."""

from collections.abc import Sequence
from signal import Signals

LONGEST = 2000
"""Characters of a message; what is longer quotes a value of thousands, of which nobody needs the middle."""


class Blip2TrainError(Exception):
    """Base of every error caused by a user's input. Commands print it as one line and exit with 2."""

    def __str__(self) -> str:
        text = super().__str__()
        return text if len(text) <= LONGEST else f"{text[: LONGEST * 3 // 4]} … {text[-LONGEST // 4 + 3 :]}"


class ConfigError(Blip2TrainError):
    """A configuration key or value cannot be used."""


class SeveralProblems(ConfigError):
    """A configuration has several faults. Commands print each in a line of its own.

    Args:
        problems: One line each.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


def refuse(problems: Sequence[str]) -> None:
    """Raise what is wrong, all at once.

    Raises:
        ConfigError: if there is one problem; if there are more, a `SeveralProblems`. The same text counts once.
    """
    distinct = list(dict.fromkeys(problems))
    if distinct:
        raise ConfigError(distinct[0]) if len(distinct) == 1 else SeveralProblems(distinct)


def problems_of(error: Blip2TrainError) -> tuple[str, ...]:
    """The problems that an error reports, one text each."""
    return error.problems if isinstance(error, SeveralProblems) else (str(error),)


class CheckpointMismatch(Blip2TrainError):
    """Weights, a tokenizer or a training state do not fit what they are loaded into."""


class DamagedFile(Blip2TrainError):
    """A file that this project wrote is not what was written: cut short, or changed by a disk or a copy."""


class FolderInUse(ConfigError):
    """Another process writes to a folder just now."""


class ShardError(Blip2TrainError):
    """A data source, shard or annotation file cannot be read, or too many of its samples cannot."""


class TrainingError(Blip2TrainError):
    """A run cannot continue, or ended without reaching its goal."""


class RunStopped(Exception):
    """A signal asked a run to stop; its state is saved.

    Args:
        signal: Number of the signal.
        step: Optimiser steps that are done and saved.
        first: Whether this is the first process.
    """

    def __init__(self, signal: int, step: int, first: bool = True) -> None:
        by = "Ctrl-C" if signal == Signals.SIGINT else Signals(signal).name
        super().__init__(f"stopped at step {step} by {by}")
        self.signal, self.step = signal, step
        self.status = 128 + signal if first else 0
        """Exit status: 143 after SIGTERM, 138 after SIGUSR1, 130 after Ctrl-C, as the shell has it for a process that a
        signal ended.

        Not 0, which would let a script take an unfinished run for a finished one; the two differ, so that a job script
        starts anew what a scheduler interrupts and leaves what a person ends. Processes other than the first end with
        0: a launcher would take anything else for a crash, and kill those that are still on their way out.
        """
