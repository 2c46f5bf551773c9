"""The results of an evaluation as JSON: scores, and all that is needed to get them again."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from blip2_train.evaluation.report.content import TaskReport
from blip2_train.system.atomic_write import write_checked

_PROGRAMS = ("torch", "torchvision", "transformers", "timm", "pycocoevalcap", "blip2_train")


def program_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what is generated and how it is scored."""
    versions = {"python": platform.python_version()}
    for name in _PROGRAMS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed as a package"
    return versions


def write_results(path: Path, tasks: Sequence[TaskReport], *, created: datetime | None = None) -> Path:
    """Write the scores of all tasks as JSON, atomically.

    Args:
        path: Path of the file; its folder is created.
        tasks: The evaluated tasks. Their examples are not written, only how many there are.
        created: Time to write; None = now.

    A score that could not be computed is `null`, with its reason in `reasons`.
    """
    content = {
        "created": (created or datetime.now(UTC)).isoformat(timespec="seconds"),
        "tasks": {
            task.name: {
                "title": task.title,
                "kind": task.kind,
                "scores": dict(task.scores),
                "reasons": {name: task.reason(name) for name, value in task.scores.items() if value is None},
                "examples": len(task.examples),
                **asdict(task.settings),
            }
            for task in tasks
        },
    }
    return write_checked(path, content, indent=2)
