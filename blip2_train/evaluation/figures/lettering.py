"""Texts of any script in a figure: fonts that have their letters, wrapped lines, and colours of single words."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOGGER = logging.getLogger(__name__)
_FIRST = "DejaVu Sans"
"""Comes with matplotlib."""
_MISSING = "(no font)"
DPI = 110
"""Pixels per inch of the figures of a run."""
LINE = 1.3
"""Height of a line, in sizes of its letters."""
_LISTED = 20
_NAMED: set[str] = set()
"""Letters without a font that the log has named."""


@dataclass(frozen=True, kw_only=True)
class Word:
    """A word, and how it is shown."""

    text: str
    colour: str = "black"
    bold: bool = False


class Lettering:
    """Fonts for some texts: matplotlib's own, and of this machine's those that have the letters it lacks.

    Letters that no font has are shown as `(no font)`, and named in one line of the log.

    Args:
        texts: Everything that will be shown.
        dpi: Pixels per inch of the figure: letters are fitted to pixels, so a word is as wide as it is at these.
    """

    def __init__(self, texts: Iterable[str], dpi: int = DPI) -> None:
        self._dpi = dpi
        letters = {letter for text in texts for letter in text if not letter.isspace()}
        missing = {ord(letter) for letter in letters} - _letters_of(_path_of(_FIRST))
        self._foreign = frozenset(map(chr, missing))
        self.families = [_FIRST]
        for family, path in _others() if missing else ():
            if covered := missing & _letters_of(path):
                self.families.append(family)
                missing -= covered
            if not missing:
                break
        self._missing = frozenset(map(chr, missing))
        if new := sorted(self._missing - _NAMED):
            _NAMED.update(new)
            some = " ".join(new[:_LISTED]) + (" …" if len(new) > _LISTED else "")
            _LOGGER.warning(
                "no font of this machine has %s: figures show %s; install one (Debian: fonts-noto-core fonts-noto-cjk)",
                some,
                _MISSING,
            )

    def shown(self, text: str) -> str:
        """A text in one line, with letters that every font lacks replaced."""
        parts: list[str] = []
        for letter in " ".join(text.split()):
            if letter not in self._missing:
                parts.append(letter)
            elif not parts or parts[-1] != _MISSING:
                parts.append(_MISSING)
        return "".join(parts)

    def lines(self, words: Sequence[Word], width: float, size: float) -> list[list[tuple[float, Word]]]:
        """Words in lines, each word with its distance from the start of its line.

        Args:
            words: In their order.
            width: Of a line, points. A word that is wider is broken.
            size: Of the letters, points.
        """
        lines: list[list[tuple[float, Word]]] = [[]]
        at, space = 0.0, self.width(" ", size)
        for word in words:
            text = self.shown(word.text)
            bold = word.bold and not self._foreign & set(text)  # of other fonts this machine may have no bold ones
            for part in self._broken(Word(text=text, colour=word.colour, bold=bold), width, size):
                length = self.width(part.text, size, part.bold)
                if lines[-1] and at + length > width:
                    lines.append([])
                    at = 0.0
                lines[-1].append((at, part))
                at += length + space
        return lines

    def width(self, text: str, size: float, bold: bool = False) -> float:
        """Points that a text takes in a line."""
        from matplotlib.backends.backend_agg import RendererAgg
        from matplotlib.font_manager import FontProperties

        font = FontProperties(family=self.families, size=size, weight="bold" if bold else "normal")
        renderer: Any = RendererAgg(1, 1, self._dpi)  # type: ignore[no-untyped-call]
        return 72 / self._dpi * float(renderer.get_text_width_height_descent(text, font, ismath=False)[0])

    def draw(
        self, axes: Axes, lines: Sequence[Sequence[tuple[float, Word]]], size: float, below: float, left: float = 0.0
    ) -> None:
        """Draw lines under an axes, its left edge theirs.

        Args:
            axes: Over them.
            lines: From `lines`.
            size: Of the letters, points.
            below: Points from the lower edge of the axes to the first line.
            left: Points from its left edge.
        """
        for number, line in enumerate(lines):
            for at, word in line:
                axes.annotate(
                    word.text,
                    (0, 0),
                    xycoords="axes fraction",
                    xytext=(left + at, -below - number * LINE * size),
                    textcoords="offset points",
                    va="top",
                    fontsize=size,
                    color=word.colour,
                    family=self.families,
                    weight="bold" if word.bold else "normal",
                    parse_math=False,
                    annotation_clip=False,
                )

    def _broken(self, word: Word, width: float, size: float) -> list[Word]:
        whole = self.width(word.text, size, word.bold)
        if whole <= width or len(word.text) < 2:
            return [word]
        fits = max(1, int(len(word.text) * width / whole * 0.9))
        parts = [word.text[start : start + fits] for start in range(0, len(word.text), fits)]
        return [Word(text=part, colour=word.colour, bold=word.bold) for part in parts]


def plain_words(text: str, colour: str = "black") -> list[Word]:
    """The words of a text, all of one colour."""
    return [Word(text=part, colour=colour) for part in text.split()]


def _path_of(family: str) -> str:
    from matplotlib import font_manager

    return str(font_manager.findfont(family))


def _others() -> list[tuple[str, str]]:
    """Families of this machine with a file of each, upright and of usual weight."""
    from matplotlib.font_manager import fontManager

    files: dict[str, str] = {}
    for font in fontManager.ttflist:
        if (
            not font.name.startswith("Last Resort")
            and font.style == "normal"
            and font.weight in (400, "normal", "regular", "book")
        ):
            files.setdefault(font.name, font.fname)
    return sorted(files.items())


@lru_cache(maxsize=512)
def _letters_of(path: str) -> frozenset[int]:
    """Code points that a font has; none if it cannot be drawn with."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path)
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (OSError, RuntimeError, ValueError):
        return frozenset()
