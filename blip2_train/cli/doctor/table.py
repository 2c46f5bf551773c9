"""Prints what was found: a row for each examination."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from blip2_train.cli.doctor.findings import OK, PROBLEM, SKIPPED, WARNING, Examination, Finding

_STYLES = {OK: "green", SKIPPED: "dim", WARNING: "yellow", PROBLEM: "bold red"}


def as_table(examinations: Sequence[Examination]) -> Table:
    """A row per examination: its title, the worst that was found, and everything that was found."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("examined", "state", "found"):
        table.add_column(column, no_wrap=column != "found", overflow="fold")
    for examination in examinations:
        lines = Text("\n").join(_line(finding) for finding in examination.findings)
        table.add_row(examination.title, Text(examination.level, _STYLES[examination.level]), lines)
    return table


def _line(finding: Finding) -> Text:
    if finding.level in (WARNING, PROBLEM):
        return Text(f"{finding.level}: {finding.text}", _STYLES[finding.level])
    return Text(finding.text)
