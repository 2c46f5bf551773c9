"""Short names of folders, for people."""

from __future__ import annotations

from collections.abc import Sequence


def short_names(folders: Sequence[str]) -> list[str]:
    """The last parts of each path, as many as tell them apart, at least two.

    Example:
        >>> short_names(["/runs/a/1", "/runs/b/1", "/more/b/1"])
        ['runs/a/1', 'runs/b/1', 'more/b/1']
    """
    parts = [folder.strip("/").split("/") for folder in folders]
    for count in range(2, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return list(folders)
