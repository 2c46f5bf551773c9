"""Names of files and of archive members that are not UTF-8, as text that can be printed, hashed and written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def printable_name(name: str) -> str:
    r"""A name for keys, ids, lists and messages; bytes that are not UTF-8 become escapes.

    Python represents such bytes as surrogates (`surrogateescape`), with which a file can be opened, but which no
    encoder accepts. JSON reads the escapes as these surrogates again, so a list of files still names the files.

    Args:
        name: as in the file system or in a tar file.

    Example:
        >>> printable_name("café.jpg"), printable_name(b"caf\xe9.jpg".decode(errors="surrogateescape"))
        ('café.jpg', 'caf\\udce9.jpg')
    """
    return name.encode("utf-8", "backslashreplace").decode()


def names_digest(names: Iterable[str]) -> str:
    """A short hash that changes when a name or the order of the names changes.

    Example:
        >>> names_digest(["00000:12", "00001:7"])
        '77e26ab47a1bd8aa'
    """
    return hashlib.blake2b("\n".join(names).encode(errors="surrogatepass"), digest_size=8).hexdigest()
