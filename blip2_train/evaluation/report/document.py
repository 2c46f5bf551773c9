"""A page in one file that loads nothing: its content security policy lets a browser run its own script only."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from blip2_train.evaluation.report.markup import Markup, element, joined

_STYLE = Path(__file__).with_name("report.css").read_text("utf-8")


def document(title: str, body: str, script: str = "", style: str = "") -> str:
    """The text of an HTML file.

    Args:
        title: Title of the page.
        body: Its content; escaped if it is no `Markup`.
        script: JavaScript that it runs, or none.
        style: CSS of its own, behind that of all pages.
    """
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    scripts = f"script-src 'sha256-{allowed}'; " if script else ""
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; {scripts}base-uri 'none'; form-action 'none'"
    )
    head = joined(
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Markup(_STYLE + style)),
    )
    content = element("body", body, element("script", Markup(script))) if script else element("body", body)
    page = element("html", element("head", head), content, lang="en")
    return joined(Markup("<!doctype html>"), page) + "\n"
