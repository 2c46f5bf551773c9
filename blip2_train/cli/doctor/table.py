"""Prints what was found: a row for each examination."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from blip2_train.cli.doctor.findings import OK, PROBLEM, SKIPPED, WARNING, Examination, Finding

_STYLES = {OK: "green", SKIPPED: "dim", WARNING: "yellow", PROBLEM: "bold red"}


def as_table(examinations: Sequence[Examination], header: bool = True) -> Table:
    """A row per examination: its title, the worst that was found, and everything that was found.

    Args:
        examinations: The rows.
        header: Whether the columns are named; a table below another goes without.
    """
    table = Table(box=None, header_style="dim", pad_edge=False, show_header=header)
    for column, width in (("examined", 13), ("state", 7), ("found", None)):  # equal in the tables of one command
        table.add_column(column, no_wrap=width is not None, overflow="fold", min_width=width)
    for examination in examinations:
        lines = Text("\n").join(_line(finding) for finding in examination.findings)
        table.add_row(examination.title, Text(examination.level, _STYLES[examination.level]), lines)
    return table


def _line(finding: Finding) -> Text:
    if finding.level in (WARNING, PROBLEM):
        return Text(f"{finding.level}: {finding.text}", _STYLES[finding.level])
    return Text(finding.text)
