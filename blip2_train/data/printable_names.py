"""Names of files and of members of archives that are not UTF-8, as text that can be printed, hashed and written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def printable_name(name: str) -> str:
    r"""A name as it stands in keys, ids, lists and messages; bytes that are no UTF-8 stand as escapes.

    Python holds such bytes as halves of characters (`surrogateescape`), with which a file can be opened, but which no
    encoder takes. JSON reads the escapes as these halves again, so a list of files still names the files.

    Args:
        name: as the file system or a tar file gives it.

    Example:
        >>> printable_name("café.jpg"), printable_name(b"caf\xe9.jpg".decode(errors="surrogateescape"))
        ('café.jpg', 'caf\\udce9.jpg')
    """
    return name.encode("utf-8", "backslashreplace").decode()


def names_digest(names: Iterable[str]) -> str:
    """A short text that changes when any of the names, or their order, does.

    Example:
        >>> names_digest(["00000:12", "00001:7"])
        '77e26ab47a1bd8aa'
    """
    return hashlib.blake2b("\n".join(names).encode(errors="surrogatepass"), digest_size=8).hexdigest()
