"""The results of a study as a table: for the terminal, and in Markdown."""

from __future__ import annotations

from blip2_train.evaluation.report.logged_scores import logged_format
from blip2_train.system.tables import NumbersTable
from studies.record import Record

NOTE = (
    "Differences from the first row with their 95 % intervals, by bootstrap over seeds and, where a score is marked *, "
    "over test scenes; bold: clear of zero. Without an interval: one seed, beside the same seed of the first row."
)


def rows_of(record: Record) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table: an arm each, a cell per score, and CPU minutes per seed."""
    scores = record["scores"]
    head = ["", *(score["label"] + (" *" if score["by_scene"] else "") for score in scores.values())]
    rows = [
        [arm["label"], *(_cell(scores[key], arm["scores"][key]) for key in scores), _minutes(arm)]
        for arm in record["arms"].values()
    ]
    return [*head, "CPU minutes a seed"], rows


def as_markdown(record: Record) -> str:
    """Title, expectation, table."""
    head, rows = rows_of(record)
    seeds = ", ".join(map(str, record["seeds"]))
    expected = record["expected"]
    lines = [f"**{record['title']}** Seeds {seeds}.", ""]
    lines += [f"Expected ({expected['written']}, before the first run): {' '.join(expected['text'].split())}", ""]
    lines += [_line(head), "| --- " + "| ---: " * (len(head) - 1) + "|", *map(_line, rows), "", NOTE]
    return "\n".join(lines) + "\n"


def as_table(record: Record) -> NumbersTable:
    """The table for a terminal."""
    head, rows = rows_of(record)
    table = NumbersTable(head, title=record["title"], note=NOTE.replace("bold:", "with !:"))
    for row in rows:
        table.add_row(*map(_plain, row))
    return table


def _cell(score: Record, result: Record) -> str:
    if result["mean"] is None:
        return "–"
    form = logged_format(score["name"].rpartition("/")[2])
    text = form.text(result["mean"])
    if "difference" not in result:
        return text
    change = _signed(form.text(abs(result["difference"])), result["difference"])
    if "interval" not in result:
        return f"{text} ({change})"
    low, high = (_signed(form.text(abs(end)), end) for end in result["interval"])
    change += f" [{low}, {high}]"
    return f"{text} (**{change}**)" if result["clear"] else f"{text} ({change})"


def _plain(cell: str) -> str:
    """A cell without Markdown: what is bold there has a mark at its end."""
    return cell.replace("**", "") + ("!" if "**" in cell else "")


def _signed(text: str, value: float) -> str:
    return ("+" if value >= 0 else "−") + text


def _minutes(arm: Record) -> str:
    seconds = arm["cpu_seconds"]
    return "–" if seconds is None else f"{seconds / 60 / len(arm['runs']):.1f}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
