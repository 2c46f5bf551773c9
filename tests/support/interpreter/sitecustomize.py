"""What every Python of the tests begins with, as its folder is on their PYTHONPATH.

Sockets reach this machine only. Garbage is collected more rarely: loading torch and what is built on it makes so many
objects that looking for it takes a fifth of the time.
"""

import gc
import socket
from typing import Any

_connect, _connect_ex, _getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo
_LOCAL = ("", "localhost", "::1", "0.0.0.0", "::", socket.gethostname())


def _refuse_remote(host: Any) -> None:
    host = host.decode() if isinstance(host, bytes) else host
    if host is not None and host not in _LOCAL and not host.startswith("127."):
        raise RuntimeError(f"a test tried to reach {host}: tests run without network")


def connect(self: socket.socket, address: Any) -> None:
    if self.family in (socket.AF_INET, socket.AF_INET6):
        _refuse_remote(address[0])
    _connect(self, address)


def connect_ex(self: socket.socket, address: Any) -> int:
    if self.family in (socket.AF_INET, socket.AF_INET6):
        _refuse_remote(address[0])
    return _connect_ex(self, address)


def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
    _refuse_remote(host)
    return _getaddrinfo(host, *arguments, **options)


socket.socket.connect = connect  # type: ignore[method-assign]
socket.socket.connect_ex = connect_ex  # type: ignore[method-assign]
socket.getaddrinfo = getaddrinfo
gc.set_threshold(50_000, 20, 20)
