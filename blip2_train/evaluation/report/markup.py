"""HTML in which every text is escaped unless it was built here."""

from __future__ import annotations

import html
import re

_VOID = {"img", "input", "meta"}
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff]")
_ATTRIBUTE = re.compile("[a-z][a-zA-Z0-9-]*")


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escape(text: str) -> Markup:
    """Text as HTML shows it, in attributes too; characters that no HTML may hold become U+FFFD."""
    if isinstance(text, Markup):
        return text
    whole = text.encode("utf-8", "replace").decode("utf-8")  # halves of surrogate pairs
    return Markup(html.escape(_CONTROLS.sub("\ufffd", whole.replace("\r\n", "\n").replace("\r", "\n")), quote=True))


def element(tag: str, *children: str, **attributes: str | float | bool | None) -> Markup:
    """An element; children that are no `Markup` are escaped, and so are the values of all attributes.

    Args:
        tag: Its name.
        children: Its content.
        attributes: A trailing `_` is dropped (`class_`), other `_` become `-`; True gives the bare name, and None and
            False leave it out.

    Example:
        >>> element("p", "1 < 2", element("b", "!"), class_="note", title='"', hidden=True, id=None)
        '<p class="note" title="&quot;" hidden>1 &lt; 2<b>!</b></p>'
    """
    written = ""
    for key, value in attributes.items():
        name = key.rstrip("_").replace("_", "-")
        if not _ATTRIBUTE.fullmatch(name):
            raise ValueError(f"{name!r} is no name of an attribute")
        if value is True:
            written += f" {name}"
        elif value is not None and value is not False:
            written += f' {name}="{escape(str(value))}"'
    if tag in _VOID:
        return Markup(f"<{tag}{written}>")
    return Markup(f"<{tag}{written}>{''.join(map(escape, children))}</{tag}>")


def joined(*parts: str) -> Markup:
    """Parts one after the other, a line each; those that are no `Markup` are escaped."""
    return Markup("\n".join(map(escape, parts)))
