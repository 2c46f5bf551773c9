"""Results as HTML, in which every text is escaped."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

from blip2_train.app.browsing import DataPage
from blip2_train.app.matching import TextScore
from blip2_train.evaluation.report.image_data import QUALITY, data_address
from blip2_train.evaluation.report.markup import Markup, element, joined

MOST_ROWS = 50
"""Rejected samples that are listed."""


def refused(line: str) -> Markup:
    """A line that says what went wrong."""
    return element("p", line, class_="refused", role="alert")


def noted(line: str) -> Markup:
    """A line that says something about a result; nothing for an empty one."""
    return element("p", line, class_="noted") if line else Markup("")


def generated(texts: Sequence[str]) -> Markup:
    """Texts that a model has generated, one under the other."""
    return element("div", *(element("p", text or "–") for text in texts), class_="generated")


def bars(scores: Sequence[TextScore]) -> Markup:
    """Scores of texts as bars: the probability of a match, and the cosine, whose bar starts at 0."""
    rows = [
        element(
            "div",
            element("span", row.text, class_="text"),
            _bar("ITM", row.itm, f"{100 * row.itm:.1f} %", "itm"),
            _bar("ITC", max(row.itc, 0.0), f"{row.itc:.3f}", "itc"),
            class_="scored",
        )
        for row in scores
    ]
    return element("div", *rows, class_="bars")


def figures(images: Sequence[tuple[Image.Image, Sequence[str]]]) -> Markup:
    """Images with lines of text below each, side by side."""
    shown = [
        element(
            "figure",
            element("img", src=_address(image), alt=lines[0] if lines else "", width=image.width, height=image.height),
            element("figcaption", *(element("span", line) for line in lines)),
        )
        for image, lines in images
    ]
    return element("div", *shown, class_="figures")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    """A table that scrolls by itself where it is too wide."""
    top = element("tr", *(element("th", cell, scope="col") for cell in head))
    body = [element("tr", *(element("td", cell) for cell in row)) for row in rows]
    inside = element("table", element("thead", top), element("tbody", *body))
    return element("div", inside, class_="scrolls", tabindex="0")


def data_report(page: DataPage) -> Markup:
    """What was looked at, what is rejected and why, and what a tokenizer does not know."""
    counted = f"{page.total:,} samples; looked at {page.looked_at:,} of them, with {page.captions:,} captions"
    parts = [element("p", counted)]
    if page.unknown is not None:
        parts.append(element("p", str(page.unknown)))
    listed = (*page.rejected, *page.left_out)
    if not listed:
        return joined(*parts, element("p", "nothing was rejected"))
    summary = ", ".join(f"{count:,} {reason}" for reason, count in page.reasons.most_common())
    parts.append(element("p", f"rejected: {summary}", class_="rejected"))
    rows = [(one.reason, one.key or "–", one.detail, one.source) for one in listed[:MOST_ROWS]]
    parts.append(table(("why", "sample", "detail", "in"), rows))
    if len(listed) > MOST_ROWS:
        parts.append(element("p", f"and {len(listed) - MOST_ROWS:,} more"))
    return joined(*parts)


def _address(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "WEBP", quality=QUALITY)
    return data_address(file.getvalue(), "webp")


def _bar(name: str, share: float, value: str, kind: str) -> Markup:
    fill = element("span", class_=f"fill {kind}", style=f"width: {100 * min(share, 1.0):.1f}%")
    return element(
        "span",
        element("span", name, class_="name"),
        element("span", fill, class_="track"),
        element("span", value, class_="value"),
        class_="bar",
    )
