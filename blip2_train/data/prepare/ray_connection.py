"""Reaches a Ray cluster, or starts a Ray on this machine that is quiet, private and gone afterwards."""

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
"""Bytes of a folder in which Ray's sockets have paths that Unix allows (107 bytes)."""
_SECONDS_TO_ANSWER = 10.0
"""How long a cluster may take to accept a connection."""
_PACKAGE = Path(blip2_train.__file__).parent
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no report to its makers
    "RAY_DISABLE_IMPORT_WARNING": "1",
}
_PRIVATE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # there and here: listen to this machine only
    "RAY_AUTH_MODE": "token",
}


@contextmanager
def connected(address: str | None, cpus: float | None = None, *, gpus: bool = False) -> Iterator[Any]:
    """The module `ray`, connected; as it was, if this process was connected before.

    Args:
        address: of a cluster: `auto`, `<host>:<port>` or `ray://<host>:<port>`; None = one that is started here, and
            ended with the context.
        cpus: cores that the one started here may give away.
        gpus: whether the one started here gives away this machine's GPUs.

    Raises:
        ConfigError: if Ray is not installed, cannot be started, or does not answer.
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
            _knock(address)
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
    """Set those variables that are not set, for the time of the context."""
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

    As long as this process lives it holds a lock on the folder; folders of killed processes are removed first.
    """
    usual = tempfile.gettempdir()
    base = Path(usual if len(os.fsencode(usual)) <= _LONGEST_BASE else "/tmp")
    for left_over in base.glob(f"{_PREFIX}*"):
        with _locked(left_over) as nobody_has_it:
            if nobody_has_it:
                shutil.rmtree(left_over, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix=".", dir=base))
    with _locked(new):
        folder = new.rename(base / f"{_PREFIX}{new.name[1:]}")  # only now others would look at it
        try:
            yield str(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Lock a folder for this process; gives whether nobody else has."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # somebody else's, or just removed
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
    """Where the workers find this package, before what they would find anyway."""
    return os.pathsep.join([str(_PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])


def _knock(address: str) -> None:
    """Refuse an address where nobody listens, for which Ray itself takes long and says much."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"ray_address={address}: expected auto, <host>:<port> or ray://<host>:<port>")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise ConfigError(f"ray_address={address}: nobody answers there ({error}); see `ray status` there") from None
