"""What a page may open: anything if it is served to this machine alone, else what was named when it was started."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from blip2_train.errors import ConfigError


@dataclass(frozen=True)
class Access:
    """What may be opened.

    Args:
        everything: Whether anything may.
        named: Models, folders and data sets that may be opened in any case.
    """

    everything: bool
    named: frozenset[str] = frozenset()

    def check(self, what: str, name: str) -> str:
        """The name without blanks around it, if it may be opened.

        Args:
            what: Kind of thing, for the message: `model`.
            name: As it was typed.

        Raises:
            ConfigError: if it may not, or nothing was typed.
        """
        name = name.strip()
        if not name:
            raise ConfigError(f"no {what} is named; choose or type one")
        if not self.everything and name not in self.named:
            raise ConfigError(
                f"{what} {name!r} was not named when this app was started, and others than this machine can reach it; "
                "choose one of the list, or have it named on the command line"
            )
        return name


def is_local(host: str) -> bool:
    """Whether an address is this machine's own, which no other machine reaches.

    Example:
        >>> [is_local(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "10.0.0.7", "my.machine")]
        [True, True, True, False, False, False]
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
