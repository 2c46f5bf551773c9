"""A plugin of pytest: a row for each test when it has ended."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from gpu_visit.results import writer


def pytest_runtest_logreport(report: Any) -> None:
    """Write how the test went; of preparations only what failed or was skipped."""
    if report.when == "call" or report.outcome != "passed":
        add = writer(Path(os.environ["BLIP2_VISIT_ROWS"]))
        why = ""
        if report.outcome == "skipped":
            why = str(report.longrepr[2])
        elif report.outcome == "failed":
            why = str(getattr(report.longrepr, "reprcrash", report.longrepr))[-400:]
        add("tests", test=report.nodeid, outcome=report.outcome, seconds=round(report.duration, 2), why=why)
