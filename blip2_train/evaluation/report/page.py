"""One HTML file that shows an evaluation: scores, curves, and a gallery that can be filtered.

Nothing is loaded from anywhere: images, style and script are inside the file, and its content security policy lets a
browser run that one script only and fetch nothing, whatever the data contain.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from blip2_train.evaluation.report.cards import card, filter_form, glance
from blip2_train.evaluation.report.charts import histogram, run_charts
from blip2_train.evaluation.report.compared_curves import compared_charts
from blip2_train.evaluation.report.content import TaskReport, TaskSettings, weights_location
from blip2_train.evaluation.report.document import document
from blip2_train.evaluation.report.markup import Markup, element, joined
from blip2_train.evaluation.report.score_table import score_table
from blip2_train.evaluation.report.selection import ChosenExample, choose_examples
from blip2_train.system.atomic_write import write_atomically

_SCRIPT = Path(__file__).with_name("report.js").read_text("utf-8")
_MANY_ROWS = 8
_NAMED = 2
"""Tasks that the title names."""
_NEAR, _AT_A_GLANCE = 6, 6
"""Examples from which on some are shown at the top, too, and how many."""


def write_report(
    path: Path,
    tasks: Sequence[TaskReport],
    *,
    title: str = "",
    run_folders: Sequence[Path] = (),
    examples_per_task: int = 60,
    created: datetime | None = None,
) -> Path:
    """Write the page of an evaluation, atomically.

    Args:
        path: Path of the HTML file; its folder is created.
        tasks: The evaluated tasks, in the order in which it is shown; their names differ.
        title: Title of the page; empty = the runs that the weights are of, and the tasks.
        run_folders: Of the trainings that the weights come from, whose `metrics.csv` is drawn as curves.
        examples_per_task: Most examples shown of each task, see `choose_examples`. Each takes 10 to 25 kB.
        created: Time to print; None = now.
    """
    if len({task.name for task in tasks}) != len(tasks):
        raise ValueError(f"two tasks have one name: {', '.join(task.name for task in tasks)}")
    when = (created or datetime.now(UTC)).strftime("%d %B %Y, %H:%M %Z").lstrip("0")
    chosen = [(task, choose_examples(task, examples_per_task)) for task in tasks]
    title = title or page_title(tasks)
    examples = [_examples(chosen)] if any(shown for _, shown in chosen) else []
    body = [_header(tasks, title, when, chosen), *(_task_section(task, len(shown)) for task, shown in chosen)]
    body += [*examples, *_curves(run_folders), _provenance(tasks)]
    return write_atomically(path, document(title, joined(*body), _SCRIPT))


def page_title(tasks: Sequence[TaskReport]) -> str:
    """Which weights were evaluated on what.

    Example:
        >>> run_name("outputs/demo_stage1/2026-12-01_20-03-25/export [blip2_train export (stage1)]")
        'demo_stage1/2026-12-01_20-03-25'
        >>> run_name("Salesforce/blip2-opt-2.7b")
        'Salesforce/blip2-opt-2.7b'
    """
    runs = list(dict.fromkeys(run_name(task.settings.checkpoint) for task in tasks))
    titles = [task.title for task in tasks]
    more = f" and {len(titles) - _NAMED} more" if len(titles) > _NAMED else ""
    return f"{' and '.join(runs)} on {', '.join(titles[:_NAMED])}{more}" if tasks else "Evaluation"


def run_name(checkpoint: str) -> str:
    """The run that an export is of, by the names of its folders; of other weights the last two parts of the name.

    What results say in brackets of the kind of the weights is left out.
    """
    parts = [part for part in weights_location(checkpoint).split("/") if part not in ("", "export")]
    return "/".join(parts[-2:])


def _header(
    tasks: Sequence[TaskReport], title: str, when: str, chosen: Sequence[tuple[TaskReport, list[ChosenExample]]]
) -> Markup:
    tiles = [_tile(task) for task in tasks if task.first_score]
    checkpoints = list(dict.fromkeys(task.settings.checkpoint for task in tasks))
    origin = element("p", " · ".join([*checkpoints, when]), class_="note data")
    every = [(task, choice) for task, picks in chosen for choice in picks]
    strip = glance(_spread(every)) if len(every) > _NEAR else Markup("")
    heading = element("h1", title, class_="data")
    return element("header", heading, origin, element("div", *tiles, class_="tiles"), strip)


def _spread(every: Sequence[tuple[TaskReport, ChosenExample]]) -> list[tuple[TaskReport, ChosenExample]]:
    """Good, middling and bad examples in turn, of all tasks."""
    step = max(1, len(every) // _AT_A_GLANCE)
    return [*every[::step], *every]


def _tile(task: TaskReport) -> Markup:
    part, what, value = task.part(task.first_score), task.format(task.first_score), task.scores[task.first_score]
    label = element("span", " · ".join(filter(None, (what.heading, part))), class_="of")
    if value is None:
        shown, note = element("b", "—"), element("span", task.reason(task.first_score), class_="papers data")
    else:
        papers = what.in_papers(value)
        shown = element("b", what.text(value))
        chance = task.chance.get(task.first_score)
        beside = [f"{papers} in papers" if papers else "", "" if chance is None else f"chance {what.text(chance)}"]
        note = element("span", ", ".join(filter(None, beside)), class_="papers") if any(beside) else Markup("")
    return element(
        "a",
        element("span", task.title, class_="name data"),
        shown,
        label,
        note,
        class_="tile",
        href=_link(task),
    )


def _link(task: TaskReport) -> str:
    """Address of the gallery with nothing but this task."""
    return "#task=" + quote(task.name, errors="replace")


def _section(name: str, title: str, *content: str) -> Markup:
    return element(
        "section",
        element("h2", title, id=f"{name}-title", class_="data"),
        *content,
        id=name,
        aria_labelledby=f"{name}-title",
    )


def _task_section(task: TaskReport, shown: int) -> Markup:
    table = score_table(task)
    heads = [element("th", task.labels.part, scope="col")]
    for column in table.columns:
        scale = element("small", "0–10 · papers’ ×100") if column.papers_factor else ""
        heads.append(element("th", column.heading, scale, scope="col"))
    rows, first = [], task.part(task.first_score) or "all"
    for part, cells in table.rows:
        values = [element("td", c.text, element("small", f" · {c.in_papers}") if c.in_papers else "") for c in cells]
        name = element("th", part, scope="row", class_="data")
        rows.append(element("tr", name, *values, class_="first" if part == first else None))
    content = [_scores(task, heads, rows[:_MANY_ROWS])]
    if more := rows[_MANY_ROWS:]:
        summary = element("summary", f"{len(more)} more parts")
        content.append(element("details", summary, _scores(task, heads, more), class_="more"))
    content += [element("p", f"{name}: {why}", class_="missing data") for name, why in table.missing]
    scores = [example.score for example in task.examples if example.score is not None]
    spread = histogram(scores, task.format(task.example_metric))
    link = element("a", f"See {shown} of {len(task.examples):,} examples", href=_link(task)) if shown else ""
    sides = element("div", *content), element("div", spread, element("p", link), class_="aside")
    return _section(f"task-{task.name}", task.title, element("div", *sides, class_="task"))


def _scores(task: TaskReport, heads: Sequence[Markup], rows: Sequence[Markup]) -> Markup:
    title, head = f"Scores of {task.title}", element("thead", element("tr", *heads))
    table = element("table", element("caption", title), head, element("tbody", *rows))
    return element("div", table, class_="scrolls", tabindex=0, role="region", aria_label=title)


def _curves(run_folders: Sequence[Path]) -> list[Markup]:
    """A section with the charts of every run that has some; no section without."""
    parts: list[Markup] = []
    names = {run_name(str(folder)): folder for folder in run_folders}
    if len(names) > 1 and (charts := compared_charts(names)):
        about = "The runs over each other, where they log the same."
        parts += [element("p", about, class_="note"), element("div", *charts, class_="charts")]
    for folder in run_folders:
        if charts := run_charts(folder):
            about = f"Of the training run {folder}, which made these weights. Held-out: on data that it kept aside."
            parts.append(element("h3", run_name(str(folder)), class_="data"))
            parts += [element("p", about, class_="note data"), element("div", *charts, class_="charts")]
    return [_section("curves", "Training curves", *parts)] if parts else []


def _examples(chosen: Sequence[tuple[TaskReport, list[ChosenExample]]]) -> Markup:
    shown = [(task, picks) for task, picks in chosen if picks]
    notes = [_bound(task, picks) for task, picks in shown]
    attention = any(choice.example.attention for _, picks in shown for choice in picks)
    if any(choice.example.words for _, picks in shown for choice in picks):
        notes.append(
            "Words that can be pressed show where they lead the queries to look, for the sake of the match; the maps "
            "of one text are scaled by its strongest word."
        )
    if attention:
        notes.append(
            "Attention: dark = the queries do not attend there, bright = they attend most. Each map is scaled by "
            "its own maximum: ≤ 3× means that it is three times uniform attention. Attention to prefix tokens (class "
            "token, registers) is left out."
        )
    domains = dict.fromkeys(choice.example.domain for _, picks in shown for choice in picks if choice.example.domain)
    flat = [(task, choice) for task, picks in shown for choice in picks]
    cards = [card(task, choice, number) for number, (task, choice) in enumerate(flat)]
    return _section(
        "examples",
        "Examples",
        *(element("p", note, class_="note data") for note in notes),
        element("noscript", element("p", "The filters need JavaScript; all examples are shown.", class_="note")),
        filter_form([task for task, _ in shown], list(domains), attention),
        element("div", joined(*cards), id="gallery"),
        element("dialog", element("button", "close", type="button", class_="close"), id="zoomed", aria_label="image"),
        element("p", "No example fits these filters.", id="none", hidden=True),
    )


def _bound(task: TaskReport, picks: Sequence[ChosenExample]) -> str:
    """How many examples are shown, of how many, and how they were chosen."""
    total = len(task.examples)
    if len(picks) == total:
        return f"{task.title}: all {total:,} examples are shown."
    counts = {pick: sum(choice.pick == pick for choice in picks) for pick in ("best", "worst", "between", "unscored")}
    shares = [
        f"the {counts['best']} best",
        f"the {counts['worst']} worst",
        f"{counts['between']} evenly spread between them",
    ]
    if not picks[0].scored:
        shares = ["evenly spread; they have no scores"]
    elif counts["unscored"]:
        shares.append(f"{counts['unscored']} without a score")
    return f"{task.title}: {len(picks)} of {total:,} examples are shown: {', '.join(shares)}."


def _provenance(tasks: Sequence[TaskReport]) -> Markup:
    groups = [
        element(
            "details", element("summary", task.title, class_="data"), _settings(task.settings), open=len(tasks) == 1
        )
        for task in tasks
    ]
    return _section("settings", "Settings", *groups)


def _settings(settings: TaskSettings) -> Markup:
    rows = [("checkpoint", settings.checkpoint), ("its fingerprint", settings.checkpoint_fingerprint)]
    rows += [(f"data: {name}", value) for name, value in settings.data_fingerprints.items()]
    rows.append(("prompt", f"“{settings.prompt}”" if settings.prompt else "none"))
    rows += [(name.replace("_", " "), str(value)) for name, value in settings.decoding.items()]
    rows += list(settings.versions.items())
    return element(
        "dl", *(element("div", element("dt", k, class_="data"), element("dd", v, class_="data")) for k, v in rows)
    )
