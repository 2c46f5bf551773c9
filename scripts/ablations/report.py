"""The results of an ablation in sentences and tables: for the terminal, and in Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ablations.record import ITG, STAGE_1, WITH, WITHOUT, Ablation, Record
from blip2_train.evaluation.report.logged_scores import logged_format


@dataclass(frozen=True, kw_only=True)
class Section:
    """One ablation in words."""

    ablation: Ablation
    title: str
    first_column: str
    arms: dict[str, str]
    """What the rows are called."""
    columns: dict[str, str]
    """What the scores are called."""
    paper: str
    """The paper's result."""
    remarks: Callable[[Record], list[str]]
    """Sentences that explain the scores."""


def _chance(record: Record) -> list[str]:
    """How far two arms that are equally good may lie apart."""
    shares = [record[ITG.name][arm]["image_to_text_r1"]["mean"] for arm in (WITH, WITHOUT)]
    error = math.sqrt(sum(share * (100 - share) for share in shares) / record["scenes"])
    return [
        f"Two such shares of {record['scenes']} scenes may differ by {2 * error:.1f} points by chance "
        "(two standard errors, image→text)."
    ]


def _peak(record: Record) -> list[str]:
    """Where CIDEr was best on the way without stage 1, if not at the end."""
    result = record["curves"][WITHOUT]["val/cider"]
    steps, values = result["steps"], result["mean"]
    best = values.index(max(values)) if values else 0
    if best + 1 >= len(values):
        return []
    return [f"Without it CIDEr is best at step {steps[best]:,}: {values[best]:.3f}, and {values[-1]:.3f} at the end."]


SECTIONS = (
    Section(
        ablation=ITG,
        title="Does ITG help retrieval?",
        first_column="trained with",
        arms={WITH: "ITC + ITM + ITG", WITHOUT: "ITC + ITM"},
        columns={
            "itc/image_to_text_r1": "image→text R@1 by ITC (%)",
            "itc/text_to_image_r1": "text→image R@1 by ITC (%)",
            "image_to_text_r1": "image→text R@1 after ITM (%)",
            "text_to_image_r1": "text→image R@1 after ITM (%)",
        },
        paper="The paper (Table 6) leaves ITG out of the fine-tuning on COCO only: there R@1 after ITM is 85.4 and "
        "68.3 with it, 84.5 and 67.2 without.",
        remarks=_chance,
    ),
    Section(
        ablation=STAGE_1,
        title="Is stage 1 needed for stage 2?",
        first_column="stage 2 starts from",
        arms={WITH: "stage 1", WITHOUT: "BERT, without stage 1"},
        columns={
            "val/cider": "CIDEr (1.0 = the papers' 100)",
            "val/names_right": "captions that name all images rightly (%)",
            "val/loss_lm": "held-out loss (nats)",
        },
        paper="In the paper (Figure 5) VQA is much worse without it, and with OPT ever worse in training.",
        remarks=_peak,
    ),
)


def rows_of(section: Section, record: Record) -> list[list[str]]:
    """Both arms and their difference, a cell for each score; with several seeds the mean, and each in brackets."""
    arms, scores = record[section.ablation.name], section.ablation.scores
    rows = [[section.arms[arm], *(_cell(score, arms[arm][score]) for score in scores)] for arm in (WITH, WITHOUT)]
    return [*rows, ["difference", *(_signed(score, difference(arms, score)) for score in scores)]]


def difference(arms: Record, score: str) -> float | None:
    """Mean with the part less that without it; None where one of them could not be computed."""
    first, second = arms[WITH][score]["mean"], arms[WITHOUT][score]["mean"]
    return None if first is None or second is None else first - second


def sentences(section: Section, record: Record) -> str:
    """The paper's result and this one's, also if they disagree."""
    ablation, arms = section.ablation, record[section.ablation.name]
    result = {score: difference(arms, score) for score in ablation.scores}
    better = [s for s, d in result.items() if d is not None and (d < 0 if s in ablation.lower_is_better else d > 0)]
    here = f"Here {len(better)} of {len(result)} scores are better with it."
    return " ".join([section.paper, here, *section.remarks(record)])


def settings_line(record: Record) -> str:
    """What was run."""
    settings = record["settings"]
    seeds = ", ".join(map(str, settings["seeds"]))
    several = len(settings["seeds"]) > 1
    parts = [f"stage 1: {settings['stage1_steps']:,} steps", f"stage 2: {settings['stage2_steps']:,} steps"]
    parts += [f"retrieval fine-tuning: {settings['finetune_steps']:,} steps"] if settings["finetune_steps"] else []
    parts += [f"means over seeds {seeds}, each in brackets" if several else f"seed {seeds}"]
    return "; ".join(parts)


def as_markdown(record: Record) -> str:
    """Tables for a README."""
    lines = [f"Emoji scenes; {settings_line(record)}."]
    for section in SECTIONS:
        lines += ["", f"**{section.title}** {sentences(section, record)}", ""]
        lines += [
            _line([section.first_column, *section.columns.values()]),
            "| --- " + "| ---: " * len(section.columns) + "|",
        ]
        lines += [_line(row) for row in rows_of(section, record)]
    return "\n".join(lines) + "\n"


def as_tables(record: Record) -> Group:
    """Tables for a terminal."""
    parts: list[Table | Text] = []
    for section in SECTIONS:
        table = Table(title=Text(section.title), title_justify="left", box=None, header_style="dim", pad_edge=False)
        table.add_column(section.first_column, no_wrap=True)
        for heading in section.columns.values():
            table.add_column(Text(heading), justify="right")
        for row in rows_of(section, record):
            table.add_row(*map(Text, row))
        parts += [table, Text(sentences(section, record), style="dim"), Text()]
    return Group(*parts, Text(settings_line(record), style="dim"))


def _cell(score: str, result: Record) -> str:
    values = list(result["values"].values())
    if result["mean"] is None:
        return "—"
    return _text(score, result["mean"]) + (
        f" ({', '.join(_text(score, v) for v in values)})" if len(values) > 1 else ""
    )


def _signed(score: str, value: float | None) -> str:
    return "—" if value is None else ("+" if value >= 0 else "−") + _text(score, abs(value))


def _text(score: str, value: float) -> str:
    return logged_format(score.rpartition("/")[2]).text(value)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
