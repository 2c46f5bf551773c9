"""The rows of the fault test: what is done to a real command, and what has to come of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fault_test.desk import Desk

Action = Callable[["Desk"], str]
Arguments = Callable[["Desk"], Sequence[object]]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A fault.

    Args:
        group: What kind of thing is bad.
        name: What is done, in words.
        action: Does it, asserts what has to hold, and returns what came out.
        cold: Whether a new interpreter runs the command; else the process is forked from one that has loaded what
            commands import (`warm_process`), which changes nothing but the time.
    """

    group: str
    name: str
    action: Action
    cold: bool = False


ROWS: list[Row] = []


def row(group: str, name: str, cold: bool = False) -> Callable[[Action], Action]:
    """Make a row of a function."""

    def add(action: Action) -> Action:
        ROWS.append(Row(group=group, name=name, action=action, cold=cold))
        return action

    return add


def refused(
    group: str, name: str, command: str, arguments: Arguments, words: str, cold: bool = False, **how: Any
) -> None:
    """A row whose command ends with one line of error that matches `words`; `how` goes to `Desk.refused`."""

    def action(desk: Desk) -> str:
        return desk.refused(command, *arguments(desk), words=words, cold=cold, **how)

    ROWS.append(Row(group=group, name=name, action=action, cold=cold))
