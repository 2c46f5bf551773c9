"""The page: six tabs, a look for light and dark, and nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from blip2_train.app.context import Context
from blip2_train.app.tabs.ask import ask_tab
from blip2_train.app.tabs.caption import caption_tab
from blip2_train.app.tabs.compare import compare_tab
from blip2_train.app.tabs.data import data_tab
from blip2_train.app.tabs.match import match_tab
from blip2_train.app.tabs.parts import gr
from blip2_train.app.tabs.search import search_tab

TITLE = "BLIP-2"
TABS = {
    "caption": caption_tab,
    "ask": ask_tab,
    "match": match_tab,
    "search": search_tab,
    "compare": compare_tab,
    "data": data_tab,
}
STYLES = Path(__file__).with_name("page.css")
FILES_DELETED = (60, 3600)
"""How often uploads and results are looked at, and the age at which they go, both in seconds."""
_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
_CODE_FONTS = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]


def build_page(context: Context) -> Any:
    """The page, as Gradio's `Blocks`."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=FILES_DELETED) as page:
        gr.HTML(f"<h1>{TITLE}</h1>", elem_classes="title")
        for name, tab in TABS.items():
            with gr.Tab(name, elem_id=f"tab-{name}"):
                tab(context)
    page.queue(default_concurrency_limit=1)
    return page


def theme() -> Any:
    """Colours of the report page, fonts of the system."""
    return gr.themes.Base(primary_hue="blue", neutral_hue="stone", font=_FONTS, font_mono=_CODE_FONTS)
