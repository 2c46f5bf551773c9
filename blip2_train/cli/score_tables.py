"""The scores of an evaluation as tables in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group
from rich.text import Text

from blip2_train.evaluation.report.content import TaskReport
from blip2_train.evaluation.report.score_table import score_table
from blip2_train.system.screen import make_console
from blip2_train.system.tables import NumbersTable


def terminal_table(task: TaskReport) -> Group:
    """A row for each part of the set; CIDEr on the library's scale, with the papers' beside it."""
    scores = score_table(task)
    table = NumbersTable(["", *(f"{column.label}\n{column.unit}" for column in scores.columns)], title=task.title)
    for part, cells in scores.rows:
        shown = [f"{cell.text} ({cell.in_papers})" if cell.in_papers else cell.text for cell in cells]
        table.add_row(part, *shown)
    notes = [f"{name}: {why}" for name, why in scores.missing]
    if any(column.papers_factor for column in scores.columns):
        notes.insert(0, "in brackets: times 100, as papers print it")
    return Group(table, *(Text(note, style="dim") for note in notes))


def print_scores(tasks: Sequence[TaskReport]) -> None:
    """Print a table for each task."""
    console = make_console()
    for task in tasks:
        console.print(terminal_table(task))
        console.print()


def print_chosen_scores(tasks: Sequence[TaskReport], chosen: Mapping[str, Sequence[str]]) -> None:
    """Print the chosen scores of all tasks, by name of the task, in one table."""
    table = NumbersTable(("task", "score", ""), texts=[1])
    for task in tasks:
        for name in chosen[task.name]:
            part, how, value = task.part(name), task.format(name), task.scores.get(name)
            score = ", ".join(filter(None, (part, how.heading)))
            if value is None:
                table.add_row(task.title, f"{score}: {task.reason(name)}", "—")
            else:
                table.add_row(task.title, score, how.text(value))
    make_console().print(table)
