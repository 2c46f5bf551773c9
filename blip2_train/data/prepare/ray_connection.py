"""Connects to a Ray cluster, or starts a private Ray on this machine that ends with the context."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import blip2_train
from blip2_train.errors import ConfigError
from blip2_train.system.extras import import_extra

_PREFIX = "blip2-ray-"
_LONGEST_BASE = 21
"""Longest path of a folder, bytes, in which the paths of Ray's sockets are short enough for Unix (107 bytes)."""
_SECONDS_TO_ANSWER = 10.0
"""Timeout of a connection to a cluster, seconds."""
_PACKAGE = Path(blip2_train.__file__).parent
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no report to its makers
    "RAY_DISABLE_IMPORT_WARNING": "1",
}
_PRIVATE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # also on Linux: listen on this machine only
    "RAY_AUTH_MODE": "token",
}


@contextmanager
def connected(address: str | None, cpus: float | None = None, *, gpus: bool = False) -> Iterator[Any]:
    """The module `ray`, connected; an existing connection of this process is used as it is.

    Args:
        address: address of a cluster: `auto`, `<host>:<port>` or `ray://<host>:<port>`; None = a new Ray on this
            machine, which ends with the context.
        cpus: cores that the new Ray may assign.
        gpus: whether the new Ray assigns this machine's GPUs.

    Raises:
        ConfigError: if Ray is not installed, cannot be started, or does not respond.
    """
    with ExitStack() as closing:
        own = {} if address is not None else _PRIVATE | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
        closing.enter_context(_environment(_QUIET | own))
        ray = _module()
        if ray.is_initialized():
            yield ray
            return
        if threading.current_thread() is threading.main_thread():  # where Ray changes it
            closing.callback(signal.signal, signal.SIGTERM, signal.getsignal(signal.SIGTERM))
        settings: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if address is None:
            folder = closing.enter_context(_short_folder())
            settings |= {"address": "local", "num_cpus": cpus, "include_dashboard": False, "_temp_dir": folder}
            settings |= {} if gpus else {"num_gpus": 0}
            settings |= {"_node_ip_address": "127.0.0.1", "runtime_env": {"env_vars": {"PYTHONPATH": _python_path()}}}
        else:
            _check_address(address)
            settings |= {"address": address, "runtime_env": {"py_modules": [str(_PACKAGE)]}}
        closing.callback(ray.shutdown)
        try:
            ray.init(**settings)
        except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
            where = "Ray cannot be started here" if address is None else f"no Ray can be used at {address}"
            advice = "" if address is None else "; one that wants a token needs RAY_AUTH_MODE=token here too"
            raise ConfigError(f"{where}: {' '.join(str(error).split())[:400]}{advice}") from None
        yield ray


def _module() -> Any:
    return import_extra("ray", "engine=ray", "or leave engine=local")


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set those variables that are not set, until the context ends."""
    new = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


@contextmanager
def _short_folder() -> Iterator[str]:
    """A new folder for Ray's files, with a path that is short enough for its sockets; removed at the end.

    This process holds a lock on the folder while it runs; folders of killed processes are removed first.
    """
    usual = tempfile.gettempdir()
    base = Path(usual if len(os.fsencode(usual)) <= _LONGEST_BASE else "/tmp")
    for left_over in base.glob(f"{_PREFIX}*"):
        with _locked(left_over) as is_free:
            if is_free:
                shutil.rmtree(left_over, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix=".", dir=base))
    with _locked(new):
        folder = new.rename(base / f"{_PREFIX}{new.name[1:]}")  # only from now on do other processes check it
        try:
            yield str(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Lock a folder for this process; yields whether the lock was free."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # of another user, or just removed
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(handle)


def _python_path() -> str:
    """`PYTHONPATH` of the workers, with this package first."""
    return os.pathsep.join([str(_PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])


def _check_address(address: str) -> None:
    """Refuse an address without a listening server, before Ray does so slowly and with long messages."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"ray_address={address}: expected auto, <host>:<port> or ray://<host>:<port>")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise ConfigError(f"ray_address={address}: no server answers there ({error}); see `ray status` there") from None
