"""Every line of the table of faults names a test that exists."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ROWS = re.findall(r"^\| ([^|]+) \| [^|]+ \| `([\w/.]+)::(\w+)` \|$", (TESTS / "faults.md").read_text("utf-8"), re.M)


@pytest.mark.parametrize(("fault", "file", "test"), ROWS)
def test_it_is_shown_by_a_test(fault: str, file: str, test: str) -> None:
    assert f"\ndef {test}(" in (TESTS / file).read_text(encoding="utf-8"), fault


def test_every_line_is_read() -> None:
    lines = [line for line in (TESTS / "faults.md").read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert len(ROWS) == len(lines) - 2 > 15
