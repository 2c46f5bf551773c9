"""The page as a whole: which of its calls wait for each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="Gradio is not installed: pip install 'blip2_train[app]'")

from blip2_train.app.access import Access
from blip2_train.app.context import Context
from blip2_train.app.examples import EXAMPLES
from blip2_train.app.models import Models
from blip2_train.app.page import build_page
from blip2_train.app.tabs.parts import CALLS


@pytest.fixture
def named(tmp_path: Path) -> dict[str, Any]:
    """What the page calls, by the names of the functions."""
    access = Access(everything=True)
    context = Context(
        models=Models([], access), access=access, examples=[], folders=[EXAMPLES], sets=[], temporary=tmp_path
    )
    return {one.fn.__name__: one for one in build_page(context).fns.values() if one.fn is not None}


def test_the_whole_page_makes_one_call_at_a_time(named: dict[str, Any]) -> None:
    instant = {"fill", "start_anew", "<lambda>"}
    waiting = {name for name, one in named.items() if (one.concurrency_id, one.concurrency_limit) == (CALLS, 1)}
    assert waiting == named.keys() - instant and {"captions", "answers", "by_text", "outputs", "page"} <= waiting
    assert all(named[name].queue for name in waiting)
    anew = named["start_anew"]
    assert anew.concurrency_limit is None, "a conversation ends at once, also while its answer is generated"
    assert anew.queue, "and what it shows comes behind what was sent before"
