"""Fetches the content of an `http://` or `https://` address: limited size and time, and from public hosts only.

An address may come from a caption file or a stranger, and must not make this machine ask a service that only its own
network can reach. So each name, also after a redirect, is resolved once, every IP address it stands for has to be
public or allowed, and the connection goes to one of these. Proxies are not used: what they would ask is unknown here.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from blip2_train.errors import ConfigError, ShardError

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 5
_CHUNK = 1 << 16
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_LOCAL_NAT64 = ipaddress.ip_network("64:ff9b:1::/48")
_IPV4_COMPATIBLE = ipaddress.ip_network("::/96")
_NAME = "blip2_train"
_KEPT = "%/:=&?~+!$,;'@()*[]"
"""What is left as it is in an address beside letters and digits."""
_LONGEST_SHOWN = 120
_LEFT_OUT, _HASH_DIGITS = "…", 16

Resolve = Callable[[str, int], Sequence[str]]
"""From a host's name and a port to IP addresses."""
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, kw_only=True)
class WebLimits:
    """What may be fetched from the web."""

    most_bytes: int = 50_000_000
    """Largest file, bytes."""
    seconds: float = 30.0
    """Longest time for a file, with the search for its host and all redirects."""
    private_networks: tuple[str, ...] = ()
    """Networks beside the public ones whose hosts may be asked, for instance `10.1.0.0/16`; `0.0.0.0/0` and `::/0` =
    all there are."""

    def __post_init__(self) -> None:
        if self.most_bytes < 1 or not self.seconds > 0:
            raise ConfigError(f"limits of the web must be above 0, got {self.most_bytes} bytes, {self.seconds} seconds")
        for network in self.private_networks:
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise ConfigError(
                    f"private network {network!r} is none ({error}); write for instance 10.1.0.0/16"
                ) from None


def is_address(text: str) -> bool:
    """Whether a text is an address with a protocol, and not a path.

    Example:
        >>> is_address("https://example.org/a.jpg"), is_address("images/a.jpg")
        (True, False)
    """
    return _ADDRESS.match(text) is not None


def shown_address(address: str) -> str:
    """An address for messages: without user, password and what follows a `?`, where keys may stand.

    Example:
        >>> shown_address("https://me:secret@example.org/a.jpg?token=123")
        'https://example.org/a.jpg?…'
    """
    protocol, _, sent = _split_address(address)
    path, question, _ = sent.partition("?")
    short = f"{protocol}{path}{'?…' if question else ''}"
    return short if len(short) <= _LONGEST_SHOWN else f"{short[:_LONGEST_SHOWN]}…"


def result_name(address: str) -> str:
    """The name of an image in results and indexes: its address, by which it can be read again, if no key is in it.

    User, password and what follows a `?` are left out; a short hash tells such addresses apart. What follows a `#` is
    never sent to a server, and is no part of the name.

    Example:
        >>> result_name("https://example.org/a.jpg"), result_name("https://example.org/a.jpg?token=123")
        ('https://example.org/a.jpg', 'https://example.org/a.jpg?…df7979cb65ce66a8')
        >>> result_name("https://me:secret@example.org/a.jpg#top")
        'https://example.org/a.jpg?…1615f0baa3a70830'
    """
    protocol, user, sent = _split_address(address)
    open_part, question, _ = f"{protocol}{sent}".partition("?")
    if not user and not question:
        return open_part
    digest = hashlib.sha256(f"{protocol}{user}{sent}".encode(errors="surrogatepass")).hexdigest()
    return f"{open_part}?{_LEFT_OUT}{digest[:_HASH_DIGITS]}"


def is_incomplete(name: str) -> bool:
    """Whether a name is that of an address of which `result_name` left something out, so that it leads nowhere.

    Example:
        >>> is_incomplete(result_name("https://example.org/a.jpg?width=3")), is_incomplete("https://example.org/a.jpg")
        (True, False)
    """
    return is_address(name) and f"?{_LEFT_OUT}" in name


def _split_address(address: str) -> tuple[str, str, str]:
    """Protocol with `://`, user with password and `@`, and what is sent to the host, its name first."""
    protocol, separator, rest = address.partition("://")
    authority, slash, path = rest.partition("/")
    user, at, host = authority.rpartition("@")
    sent = f"{host}{slash}{path}".partition("#")[0]
    return protocol + separator, user + at, sent


def is_public(address: IPAddress) -> bool:
    """Whether an IP address belongs to a host of the internet, also one written inside another address.

    Example:
        >>> [is_public(ipaddress.ip_address(text)) for text in ("8.8.8.8", "10.0.0.1", "::ffff:127.0.0.1")]
        [True, False, False]
    """
    inner = _inside(address)
    if inner is not None:
        return is_public(inner)
    local = isinstance(address, ipaddress.IPv6Address) and (address.is_site_local or address in _LOCAL_NAT64)
    return address.is_global and not address.is_multicast and not local


def fetch(address: str, limits: WebLimits | None = None, resolve: Resolve | None = None) -> bytes:
    """The content of a file on the web.

    Args:
        address: `http://…` or `https://…`.
        limits: What may be fetched; None = the limits of `WebLimits`.
        resolve: Finds the IP addresses of a name; None = as the system does.

    Raises:
        ConfigError: if it is no such address, or one of its hosts is not public and not allowed.
        ShardError: if there is no answer in time, the answer is no file, or it is too large.
    """
    limits = limits or WebLimits()
    work = _Fetching(limits, resolve or _resolve)
    outcome: SimpleQueue[bytes | BaseException] = SimpleQueue()
    # In a thread of its own: the search for a name, TLS, and an answer in drops have no time limit together.
    threading.Thread(target=lambda: outcome.put(work.run(address)), daemon=True).start()
    try:
        result = outcome.get(timeout=limits.seconds)
    except Empty:
        work.stop()
        raise ShardError(f"{shown_address(address)} was not there after {limits.seconds:g} s; try again") from None
    if isinstance(result, BaseException):
        raise result
    return result


class _Fetching:
    """One file on its way; `stop` ends it from another thread."""

    def __init__(self, limits: WebLimits, resolve: Resolve) -> None:
        self._limits, self._resolve = limits, resolve
        self._deadline = time.monotonic() + limits.seconds
        self._socket: socket.socket | None = None

    def run(self, address: str) -> bytes | BaseException:
        """The content, or why there is none."""
        current = address
        try:
            for _ in range(_MOST_REDIRECTS + 1):
                answer = self._ask(current)
                if isinstance(answer, bytes):
                    return answer
                current = urljoin(current, answer)
            return ShardError(
                f"{shown_address(address)} leads on more than {_MOST_REDIRECTS} times; give where it ends"
            )
        except (ConfigError, ShardError) as error:
            return error
        except (OSError, HTTPException, ValueError) as error:  # ValueError: of addresses, and of a socket just stopped
            reason = str(getattr(error, "strerror", None) or error) or type(error).__name__
            return ShardError(f"{shown_address(current)} cannot be fetched ({' '.join(reason.split())[:150]})")
        except Exception as error:  # a thread must not end without a result
            return error

    def stop(self) -> None:
        """End the connection."""
        if self._socket is not None:
            with suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _ask(self, address: str) -> bytes | str:
        """The content at an address, or where it is instead."""
        parts, host, port = _split(address)
        with self._connect(address, host, port, parts.scheme.lower() == "https") as connected:
            connection = HTTPConnection(host, port)
            connection.sock = connected
            target = quote(parts.path or "/", safe=_KEPT) + (
                f"?{quote(parts.query, safe=_KEPT)}" if parts.query else ""
            )
            headers = {"User-Agent": _NAME, "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}
            connection.request("GET", target, headers=headers | {"Connection": "close"})
            with connection.getresponse() as response:
                location = response.headers.get("Location")
                if response.status in _REDIRECTS and location:
                    return location
                if response.status != 200:
                    reason = " ".join(response.reason.split())[:60]
                    raise ShardError(
                        f"{shown_address(address)} answers {response.status} {reason}; open it in a browser"
                    )
                return self._content(response, address)

    def _connect(self, address: str, host: str, port: int, secure: bool) -> socket.socket:
        """A connection to a host that was checked."""
        allowed = [ipaddress.ip_network(network) for network in self._limits.private_networks]
        resolved = [ipaddress.ip_address(text) for text in dict.fromkeys(self._resolve(host, port))]
        for one in resolved:
            if not is_public(one) and not any(_is_in(one, network) for network in allowed):
                raise ConfigError(
                    f"{shown_address(address)} is at {one}, which is not public; give the file itself, or allow its "
                    "network (private_networks)"
                )
        problem: Exception = OSError(f"{host} has no IP address")
        for one in resolved:
            try:
                self._socket = socket.create_connection((str(one), port), timeout=self._left())
            except OSError as error:
                problem = error
                continue
            if not secure:
                return self._socket
            context = ssl.create_default_context()
            secured = context.wrap_socket(self._socket, server_hostname=host, do_handshake_on_connect=False)
            self._socket = secured
            try:
                secured.do_handshake()
            except BaseException:
                secured.close()
                raise
            return secured
        raise problem

    def _content(self, response: HTTPResponse, address: str) -> bytes:
        most, expected = self._limits.most_bytes, response.length  # counts down while it is read
        content = bytearray()
        while max(len(content), expected or 0) <= most and (part := response.read1(_CHUNK)):
            content += part
            self._left()
        if max(len(content), expected or 0) > most:
            raise ShardError(f"{shown_address(address)} has more than {most:,} bytes; give a smaller image")
        if expected is not None and len(content) < expected:
            raise ShardError(
                f"{shown_address(address)} broke off after {len(content):,} of {expected:,} bytes; try again"
            )
        return bytes(content)

    def _left(self) -> float:
        """Seconds until the limit."""
        if (left := self._deadline - time.monotonic()) <= 0:
            raise TimeoutError("timed out")
        return left


def _split(address: str) -> tuple[SplitResult, str, int]:
    """Parts of an address, its host and its port."""
    shown = shown_address(address)
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:  # its text has the whole address, with what may be secret
        raise ConfigError(f"{shown} is no address that can be read; give https://host/image.jpg") from None
    if parts.scheme.lower() not in ("http", "https"):
        raise ConfigError(f"{shown} is no address of an image; give http://…, https://… or a path")
    if not parts.hostname or parts.username is not None:
        raise ConfigError(
            f"{shown} {'names a user' if parts.hostname else 'names no host'}; write https://host/image.jpg"
        )
    return parts, parts.hostname, port or {"http": 80, "https": 443}[parts.scheme.lower()]


def _resolve(host: str, port: int) -> list[str]:
    try:
        entries: list[Any] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise OSError(f"{host!r} is no name of a host") from None
    return [str(entry[4][0]) for entry in entries]


def _inside(address: IPAddress) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address carries, if it does."""
    if not isinstance(address, ipaddress.IPv6Address):
        return None
    if address in _NAT64 or address in _IPV4_COMPATIBLE:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)


def _is_in(address: IPAddress, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    return address.version == network.version and address in network
