"""The page that `check sheet=<file.html>` writes: images with their captions, what was rejected, and why.

One file without script that loads nothing from anywhere; whatever the data contain is shown as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from blip2_train.cli.check_report import COLUMNS, Copies, contents_rows, fix_of
from blip2_train.data.batches.language_tokenizer import LanguageTokenizer
from blip2_train.data.batches.unknown_tokens import UnknownTokens
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.sources.holdout import evenly_chosen
from blip2_train.data.sources.source import CaptionSource
from blip2_train.data.stream.inspection import Inspection, SeenImage, leaks
from blip2_train.evaluation.report.document import document
from blip2_train.evaluation.report.image_data import embed_image
from blip2_train.evaluation.report.markup import Markup, element, joined
from blip2_train.system.atomic_write import write_atomically
from blip2_train.types import ImageTextSample

SHOWN = 60
"""Images of each source and use that are shown; each takes 10 to 25 kB."""
LISTED = 500
"""Rejected samples that are listed."""
_CAPTIONS = 6
_STYLE = """
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 13rem), 1fr)); gap: 1rem; }
.sheet .frame { height: 11rem; }
.sheet .stage { width: min(100%, calc(11rem * var(--w) / var(--h))); }
.sheet .captions { list-style: none; margin: 0; padding: 0; font-size: 0.95rem; }
.sheet .captions li + li { margin-top: 0.4rem; padding-top: 0.4rem; border-top: 1px solid var(--line); }
.sheet .captions small { display: block; }
mark { color: var(--worst); background: var(--worst-ground); border-radius: 3px; }
.doubts { padding-left: 1.2rem; max-width: 80ch; }
.doubts li { margin: 0.35rem 0; color: var(--worst); }
td:nth-child(-n + 2), th:nth-child(-n + 2) { text-align: left; }
.listed td, .listed th { white-space: normal; text-align: left; overflow-wrap: break-word; }
.same { display: flex; gap: 1rem; margin: 0.75rem 0; align-items: center; }
.same .stage { flex: none; width: 6rem; border-radius: 8px; overflow: hidden; }
.same p { min-width: 0; }
@media (max-width: 40rem) {
  .listed thead { display: none; }
  .listed tr, .listed td { display: block; }
  .listed tr { padding: 0.5rem 0; }
  .listed td { padding: 0.1rem 1rem; overflow-wrap: anywhere; }
}
"""


@dataclass(frozen=True, kw_only=True)
class SheetPart:
    """One use of one source, as far as it was looked at."""

    source: CaptionSource
    seen: Inspection
    lengths: Sequence[int]
    """Tokens of each caption, before anything is cut."""
    unknown: UnknownTokens


def write_sheet(
    path: Path,
    recipe: str,
    parts: Sequence[SheetPart],
    tokenizer: Any,
    longest: int,
    doubts: Sequence[str],
    same: Copies,
) -> Path:
    """Write the page, atomically.

    Args:
        path: Of the HTML file; its folder is created.
        recipe: Name of the recipe whose data these are.
        parts: What was looked at.
        tokenizer: Of the collator; unknown words are marked.
        longest: Tokens that are kept of a caption.
        doubts: Warnings.
        same: Images that are the same file under several names.
    """
    when = datetime.now(UTC).strftime("%d %B %Y, %H:%M %Z").lstrip("0")
    looked = sum(part.seen.looked_at for part in parts)
    title = f"Data of {recipe}"
    body = [
        element("h1", title, class_="data"),
        element("p", f"{looked:,} samples were looked at, {when}", class_="note"),
        _contents(parts, longest),
    ]
    if doubts:
        body.append(
            _section("Worth a look", element("ul", *(element("li", line) for line in doubts), class_="doubts data"))
        )
    body += _rejected(parts)
    body += _copies(parts, same)
    plain = tokenizer.tokenizer if isinstance(tokenizer, LanguageTokenizer) else tokenizer
    body += [_images(part, plain, longest) for part in parts]
    return write_atomically(path, document(title, joined(*body), style=_STYLE))


def _section(title: str, *content: str) -> Markup:
    return element("section", element("h2", title, class_="data"), *content)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], kind: str | None = None) -> Markup:
    head = element("thead", element("tr", *(element("th", name, scope="col") for name in heads)))
    lines = [element("tr", *(element("td", cell, class_="data") for cell in row)) for row in rows]
    table = element("table", head, element("tbody", *lines), class_=kind)
    return element("div", table, class_="scrolls", tabindex="0")


def _contents(parts: Sequence[SheetPart], longest: int) -> Markup:
    rows = contents_rows(
        [part.seen for part in parts], [part.lengths for part in parts], [part.unknown for part in parts], longest
    )
    return element("section", _table(COLUMNS, rows))


def _rejected(parts: Sequence[SheetPart]) -> list[Markup]:
    """What cannot be used: found when a source was opened, or when a sample was read; and captions of usable images."""
    samples = list(dict.fromkeys(one for part in parts for one in (*part.source.rejected, *part.seen.broken)))
    captions = list(dict.fromkeys(one for part in parts for one in part.seen.left_out))
    sections = []
    for title, rejected, note in (
        ("Rejected", samples, "A run replaces each by another sample, and lists it in rejected.jsonl."),
        ("Captions left out", captions, "Their images are used with their other captions."),
    ):
        if rejected:
            rows = [(Path(one.source).name, one.key, one.reason, one.detail, fix_of(one)) for one in rejected[:LISTED]]
            more = f" The first {LISTED:,} are listed." if len(rejected) > LISTED else ""
            text = element("p", f"{len(rejected):,} in all. {note}{more}", class_="note")
            sections.append(
                _section(title, text, _table(("file", "sample", "reason", "detail", "what to do"), rows, "listed"))
            )
    return sections


def _copies(parts: Sequence[SheetPart], same: Copies) -> list[Markup]:
    """The first groups of equal images, each with where it lies."""
    sources = {id(part.seen): part.source for part in parts}
    rows = []
    for group in same[:20]:
        part, image = group[0]
        warning = " Validation shows what was trained on: remove one." if leaks(group) else ""
        where = " = ".join(f"{_origin(one)} ({use.use})" for use, one in group[:4])
        more = f" = {len(group) - 4} more" if len(group) > 4 else ""
        rows.append(
            element(
                "div", _shown_image(sources[id(part)], image), element("p", where + more + warning), class_="same data"
            )
        )
    lie = "image lies" if len(same) == 1 else "images lie"
    note = element("p", f"{len(same):,} {lie} under several names.", class_="note")
    return [_section("Same images", note, *rows)] if same else []


def _images(part: SheetPart, tokenizer: Any, longest: int) -> Markup:
    seen = part.seen
    counts = iter(part.lengths)
    lengths = [[next(counts) for _ in image.texts] for image in seen.images]
    chosen = [int(row) for row in evenly_chosen(len(seen.images), SHOWN)]
    cards = [_card(part.source, seen.images[row], lengths[row], tokenizer, longest) for row in chosen]
    note = f"{len(cards):,} of {len(seen.images):,} usable images that were looked at, of {seen.samples:,} in all"
    return _section(
        f"{seen.source}, {seen.use}", element("p", note, class_="note"), element("div", *cards, class_="sheet")
    )


def _card(source: CaptionSource, image: SeenImage, lengths: Sequence[int], tokenizer: Any, longest: int) -> Markup:
    lines = []
    for text, length in list(zip(image.texts, lengths, strict=True))[:_CAPTIONS]:
        cut = f", cut to {longest}" if length > longest else ""
        size = element("small", f"{length} token{'s' * (length != 1)}{cut}")
        lines.append(element("li", *_marked(_as_text(text), tokenizer), size, class_="data"))
    if len(image.texts) > _CAPTIONS:
        lines.append(element("li", element("small", f"and {len(image.texts) - _CAPTIONS} more")))
    frame = element("div", _shown_image(source, image), class_="frame")
    details = element(
        "div",
        element("ul", *lines, class_="captions"),
        element("p", _origin(image), class_="origin data", title=image.where),
        class_="details",
    )
    return element("article", frame, details, class_="card")


def _shown_image(source: CaptionSource, image: SeenImage) -> Markup:
    """The image, small; words in its place if it cannot be read any more."""
    try:
        embedded = embed_image(source.read(image.index).image)
    except UnusableSample:
        embedded = None
    if embedded is None:
        return element("span", "no longer readable")
    shown = element(
        "img", src=embedded.address, alt=image.where, width=embedded.width, height=embedded.height, loading="lazy"
    )
    return element("div", shown, class_="stage", style=f"--w:{embedded.width};--h:{embedded.height}")


def _origin(image: SeenImage) -> str:
    """File and row or key of an image, without the folders."""
    return image.where.rpartition("/")[2]


def _as_text(sample: ImageTextSample) -> str:
    question = getattr(sample, "question", None)
    return sample.caption if question is None else f"{question} → {sample.caption}"


def _marked(text: str, tokenizer: Any) -> list[str]:
    """A text in parts, of which those that the tokenizer does not know are marked."""
    if not getattr(tokenizer, "is_fast", False):
        return [text]
    coded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    parts, end = [], 0
    for token, (first, last) in zip(coded["input_ids"], coded["offset_mapping"], strict=True):
        if token == tokenizer.unk_token_id and last > first >= end:
            parts += [text[end:first], element("mark", text[first:last], title="not known to the tokenizer")]
            end = last
    return [*parts, text[end:]]
