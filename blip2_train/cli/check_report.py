"""What `check` prints: a table of the data, what is wrong with them, and samples as the model reads them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.console import Console
from torch import Tensor

from blip2_train.data.batches.language_tokenizer import LanguageTokenizer
from blip2_train.data.batches.unknown_tokens import UnknownTokens
from blip2_train.data.stream.inspection import Inspection, SeenImage, leaks
from blip2_train.data.text_cleaning import EMPTY, NOT_UNICODE
from blip2_train.system.screen import in_one_line
from blip2_train.system.tables import NumbersTable
from blip2_train.types import Batch, Collator, GenerationBatch, ImageTextBatch, RejectedSample

COLUMNS = ("source", "use", "images", "looked at", "captions", "broken", "tokens", "cut", "unknown")
"""Of the table of what there is."""
Copies = Sequence[Sequence[tuple[Inspection, SeenImage]]]
"""Groups of images that are the same file under several names."""
_LISTED = 10
_FIXES = {
    "missing image": "put the image there, or remove the row",
    "unreadable image": "save the image again, or remove it",
    "image too large": "make the image smaller",
    EMPTY: "write words, or remove the row",
    NOT_UNICODE: "write the text again, in UTF-8 and with whole characters",
    "missing text": "write a caption, or remove the row",
}


def contents_table(
    parts: Sequence[Inspection],
    lengths: Sequence[Sequence[int]],
    unknown: Sequence[UnknownTokens],
    longest: int,
) -> NumbersTable:
    """A row per source and use.

    Args:
        parts: What was looked at.
        lengths: Tokens of each caption of each part.
        unknown: What the tokenizer does not know of each part.
        longest: Tokens that are kept.
    """
    table = NumbersTable(COLUMNS, texts=[1])
    for row in contents_rows(parts, lengths, unknown, longest):
        table.add_row(*row)
    return table


def contents_rows(
    parts: Sequence[Inspection],
    lengths: Sequence[Sequence[int]],
    unknown: Sequence[UnknownTokens],
    longest: int,
) -> list[tuple[str, ...]]:
    """The cells of `contents_table`, below `COLUMNS` (arguments as there)."""
    rows = list[tuple[str, ...]]()
    for part, tokens, lost in zip(parts, lengths, unknown, strict=True):
        cut = sum(length > longest for length in tokens)
        row = (
            part.source,
            part.use,
            f"{part.samples:,}",
            f"{part.looked_at:,}",
            f"{len(tokens):,}",
            f"{len(part.broken):,}",
            f"{min(tokens)} … {max(tokens)}" if tokens else "",
            f"{cut:,} ({100 * cut / len(tokens):.1f} %)" if tokens else "",
            f"{100 * lost.share:.1f} %" if lost.tokens else "",
        )
        rows.append(row)
    return rows


def caption_lines(parts: Sequence[Inspection], lengths: Sequence[Sequence[int]]) -> list[str]:
    """The shortest and the longest caption over all parts."""
    texts = [sample.caption for part in parts for sample in part.texts]
    counted = sorted(zip((length for tokens in lengths for length in tokens), texts, strict=True))
    ends = (("shortest", counted[:1]), ("longest", counted[-1:]))
    note = "tokens are counted with start, prompt and end, before what is beyond max_text_length is cut"
    return [
        note,
        *(
            f"{name} caption, {n} tokens: {textwrap.shorten(text, 100)}"
            for name, shown_captions in ends
            for n, text in shown_captions
        ),
    ]


def broken_lines(broken: Sequence[RejectedSample]) -> list[str]:
    """Where each broken sample lies, what is wrong with it, and what to do."""
    lines = [
        f"broken: {sample.source}, {sample.key}: {sample.reason} ({sample.detail}); {fix_of(sample)}"
        for sample in broken[:_LISTED]
    ]
    more = [f"broken: and {len(broken) - _LISTED} more"] if len(broken) > _LISTED else []
    note = ["a run replaces a broken sample by another one, and lists it in rejected.jsonl"] if broken else []
    return [*lines, *more, *note]


def fix_of(sample: RejectedSample) -> str:
    """What to do about a sample that cannot be used."""
    return _FIXES.get(sample.reason, "mend it")


def left_out_lines(left_out: Sequence[RejectedSample]) -> list[str]:
    """Where each caption lies that cannot be used, though its image can."""
    lines = [f"left out: {one.source}, {one.key}: {one.reason} ({one.detail})" for one in left_out[:_LISTED]]
    return [*lines, *([f"left out: and {len(left_out) - _LISTED} more"] if len(left_out) > _LISTED else [])]


def copy_lines(groups: Copies) -> list[str]:
    """Which images are the same file under several names."""
    lines = []
    for group in groups[:_LISTED]:
        locations = " = ".join(f"{image.where} ({part.use})" for part, image in group[:4])
        more = f" = {len(group) - 4} more" if len(group) > 4 else ""
        warning = "; validation shows what was trained on: remove one" if leaks(group) else ""
        lines.append(f"same image: {locations}{more}{warning}")
    leaking = sum(leaks(group) for group in groups)
    total = [f"same image: {len(groups)} times in all, {leaking} of them in training and in validation"]
    return [*lines, *(total if groups else [])]


def sample_lines(batch: Batch, collator: Collator, shown: int) -> list[str]:
    """Samples as the model reads them: size and range of the image, ids, and what ids and labels stand for."""
    assert isinstance(batch, ImageTextBatch | GenerationBatch)
    lines = []
    for row in range(min(shown, len(batch))):
        pixels, ids = batch.pixel_values[row], batch.input_ids[row][batch.attention_mask[row]]
        size = " x ".join(map(str, pixels.shape))
        lines.append(f"sample {batch.sample_ids[row]}: image {size}, {pixels.min():.2f} … {pixels.max():.2f}")
        lines.append(f"  ids    {' '.join(map(str, ids.tolist()))}")
        lines.append(f"  input  {_text(collator, ids)!r}")
        if isinstance(batch, GenerationBatch):
            labels = batch.labels[row]
            lines.append(f"  label  {_text(collator, labels[labels >= 0])!r}")
    return lines


def _text(collator: Collator, ids: Tensor) -> str:
    tokenizer = collator.tokenizer
    plain = tokenizer.tokenizer if isinstance(tokenizer, LanguageTokenizer) else tokenizer
    return str(plain.decode(ids.tolist()))


def show(console: Console, lines: Sequence[str]) -> None:
    """Print lines as they are, however wide the terminal is; names in them begin no line of their own."""
    for line in lines:
        console.print(in_one_line(line), highlight=False, markup=False, soft_wrap=True)
