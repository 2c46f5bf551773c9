"""Pages link to what is there, and name files of the project that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf-8"))
    missing = [link for link in links if not (page.parent / link).exists()]
    assert missing == []


def test_the_plan_names_rooms_that_exist() -> None:
    plan = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    table = plan.split("## Adding something")[0]
    for name in re.findall(r"^\| \d \| (`[^|]+`) \|", table, re.MULTILINE):
        for part in re.findall(r"`([^`]+)`", name):
            assert (ROOT / "blip2_train" / part).exists(), part
    rooms = {path.name for path in (ROOT / "blip2_train" / "data").iterdir() if (path / "__init__.py").exists()}
    row = next(line for line in table.splitlines() if line.startswith("| 1 | `data/`"))
    assert rooms == set(re.findall(r"`(\w+)`", row.split("|")[3]))
    for path in re.findall(r"`((?:models|objectives|training|cli)/[\w/]+\.py)`", plan):
        assert (ROOT / "blip2_train" / path).is_file(), path
