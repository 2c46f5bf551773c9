"""One HTML file that shows runs side by side: scores, curves over each other, and the settings that differ."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from blip2_train.evaluation.comparison.runs import ComparedRun
from blip2_train.evaluation.comparison.tables import ComparedRow, differing_settings, how_many, score_rows
from blip2_train.evaluation.report.compared_curves import compared_charts
from blip2_train.evaluation.report.document import document
from blip2_train.evaluation.report.markup import Markup, element, joined
from blip2_train.system.atomic_write import write_atomically


def write_comparison(path: Path, runs: Sequence[ComparedRun], *, created: datetime | None = None) -> Path:
    """Write the page of a comparison, atomically.

    Args:
        path: Path of the HTML file; its folder is created.
        runs: Two or more.
        created: Time to print; None = now.
    """
    when = (created or datetime.now(UTC)).strftime("%d %B %Y, %H:%M %Z").lstrip("0")
    title = f"{len(runs)} runs compared"
    lines = [*(" – ".join(filter(None, (str(run.folder), run.state))) for run in runs), when]
    header = element("header", element("h1", title), *(element("p", line, class_="note data") for line in lines))
    scores, settings = score_rows(runs), differing_settings(runs)
    best = (
        "Bold: the best of the runs, where they measure the same: a loss of another objective or batch, or a score "
        "of other samples, is no worse or better. Held-out scores of a training are those of the weights "
        "that it exports: see above."
    )
    parts = [header, _section("scores", "Scores", _note(best), _table("Scores", runs, scores))] if scores else [header]
    if charts := compared_charts({run.name: run.folder for run in runs}):
        about = "Losses and held-out scores that two runs or more logged, over optimiser steps."
        parts.append(_section("curves", "Curves", _note(about), element("div", *charts, class_="charts")))
    about = f"{how_many(settings)}; – = the run has no such setting." if settings else "All are the same."
    table = [_table("Settings that differ", runs, settings)] if settings else []
    parts.append(_section("settings", "Settings that differ", _note(about), *table))
    return write_atomically(path, document(title, joined(*parts)))


def _section(name: str, title: str, *content: str) -> Markup:
    heading = element("h2", title, id=f"{name}-title")
    return element("section", heading, *content, id=name, aria_labelledby=f"{name}-title")


def _note(text: str) -> Markup:
    return element("p", text, class_="note")


def _table(title: str, runs: Sequence[ComparedRun], rows: Sequence[ComparedRow]) -> Markup:
    heads = [element("th", "", scope="col"), *(element("th", run.name, scope="col", class_="data") for run in runs)]
    lines = [
        element(
            "tr",
            element("th", row.label, scope="row", class_="data"),
            *(
                element("td", element("b", value) if index in row.best else value, class_="data")
                for index, value in enumerate(row.values)
            ),
        )
        for row in rows
    ]
    head, body = element("thead", element("tr", *heads)), element("tbody", *lines)
    table = element("table", element("caption", title), head, body, class_="compared")
    return element("div", table, class_="scrolls", tabindex=0, role="region", aria_label=title)
