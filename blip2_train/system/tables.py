"""Tables of numbers in a terminal: however narrow it is, no number is cut."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

_FOLDED = 20
"""Characters that a column of texts is left at least."""
_GAP = 2
"""Spaces between columns."""


class NumbersTable:
    """A table whose columns stand below each other, in several tables, where the terminal is too narrow for all.

    Args:
        columns: Headings. The first column is of texts, which fold; the others are of numbers, which do not.
        title: Above the table.
        texts: Positions of further columns that are of texts.
        note: Below the table.
    """

    def __init__(self, columns: Sequence[str], *, title: str = "", texts: Sequence[int] = (), note: str = "") -> None:
        self._columns, self._texts, self._title, self._note = list(columns), {0, *texts}, title, note
        self._rows: list[tuple[str | Text, ...]] = []

    def add_row(self, *cells: str | Text) -> None:
        """A cell for each column."""
        if len(cells) != len(self._columns):
            raise ValueError(f"{len(cells)} cells for {len(self._columns)} columns")
        self._rows.append(cells)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        chosen: list[int] = []
        parts: list[Table] = []
        for column in range(1, len(self._columns)):
            if chosen and self._least_width([0, *chosen, column]) > options.max_width:
                parts.append(self._part([0, *chosen]))
                chosen = []
            chosen.append(column)
        parts.append(self._part([0, *chosen]))
        if self._title:
            yield Text(self._title, style="italic")
        yield from parts
        if self._note:
            yield Text(self._note, style="dim")

    def _part(self, columns: Sequence[int]) -> Table:
        table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, _GAP, 0, 0))
        for column in columns:
            texts = column in self._texts
            table.add_column(
                Text(self._columns[column]),
                justify="left" if texts else "right",
                overflow="fold",
                no_wrap=not texts,
                min_width=None if texts else self._width(column),
            )
        for row in self._rows:
            table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in map(row.__getitem__, columns)))
        return table

    def _width(self, column: int) -> int:
        """Characters of the longest line of a column."""
        cells = [self._columns[column], *(str(row[column]) for row in self._rows)]
        return max(cell_len(line) for cell in cells for line in cell.split("\n"))

    def _least_width(self, columns: Sequence[int]) -> int:
        """Characters that these columns take when their texts are folded as far as one likes to read them."""
        widths = [min(self._width(one), _FOLDED) if one in self._texts else self._width(one) for one in columns]
        return sum(widths) + _GAP * (len(widths) - 1)


def rate(per_second: float) -> str:
    """A speed in two or more digits.

    Example:
        >>> rate(1234.5), rate(4.567), rate(0.0321)
        ('1,234', '4.6', '0.032')
    """
    return f"{per_second:,.0f}" if per_second >= 10 else f"{per_second:.2g}"
