"""Results of a visit as one JSON file and one page of Markdown tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpu_visit.goals import goal_lines
from gpu_visit.options import VisitOptions
from gpu_visit.results import Row


def write_report(out: Path, options: VisitOptions, results: Mapping[str, Any]) -> None:
    """Write visit.json and visit.md anew; so a visit that is cut short has what there was."""
    lines = goal_lines(results)
    whole = {"options": asdict(options), "goals": lines, "parts": results}
    (out / "visit.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    (out / "visit.md").write_text(as_markdown(options, results, lines), encoding="utf-8")


def as_markdown(options: VisitOptions, results: Mapping[str, Any], goals: Sequence[str]) -> str:
    """Goals, states of the parts, and a table for each name of a table."""
    title = f"# Visit, device={options.device} size={options.size}\n"
    states = [
        {"part": name, "state": part["state"], "seconds": part["seconds"], "why": part["reason"]}
        for name, part in results.items()
    ]
    blocks = [title, *(f"- {line}" for line in goals), "", _table(states)]
    for part in results.values():
        tables = dict.fromkeys(row["table"] for row in part["rows"])
        for name in tables:
            rows = [
                {key: value for key, value in row.items() if key != "table"}
                for row in part["rows"]
                if row["table"] == name
            ]
            blocks += ["", f"## {name}", "", _table(rows)]
    return "\n".join(blocks) + "\n"


def _table(rows: Sequence[Row]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [f"| {' | '.join(columns)} |", f"|{'--|' * len(columns)}"]
    lines += [f"| {' | '.join(_cell(row.get(column)) for column in columns)} |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return " ".join(str(value).split()).replace("|", "\\|")
