"""Packages that only some commands and options need: one way to import them, and one hint where they are missing."""

from __future__ import annotations

import importlib
import re
from importlib import metadata
from typing import Any

from blip2_train.errors import ConfigError

PROJECT = "blip2_train"
EXTRAS = {
    "bitsandbytes": ("bitsandbytes", "quantization"),
    "torchao": ("torchao", "quantization"),
    "peft": ("peft", "peft"),
    "hydra_plugins.hydra_submitit_launcher": ("hydra-submitit-launcher", "slurm"),
    "pyarrow": ("pyarrow", "data"),
    "s3fs": ("s3fs", "data"),
    "ray": ("ray", "data"),
    "open_clip": ("open_clip_torch", "data"),
    "faiss": ("faiss-cpu", "search"),
    "gradio": ("gradio", "app"),
    "gguf": ("gguf", "real"),
    "onnx": ("onnx", "real"),
}
"""By module: the package that brings it, and this project's extra that names the package."""


def import_extra(module: str, what: str, otherwise: str = "") -> Any:
    """A module of an extra, or of a package below it.

    Args:
        module: `pyarrow`, or `pyarrow.parquet`.
        what: The feature that needs it, the beginning of the message.
        otherwise: What to do without it: `or pass peft=none`.

    Raises:
        ConfigError: if it is not installed, or is and cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        key = next(name for name in EXTRAS if f"{module}.".startswith(f"{name}."))
        if isinstance(error, ModuleNotFoundError) and f"{key}.".startswith(f"{error.name}."):
            raise ConfigError(missing_extra(key, what, otherwise)) from None
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ConfigError(
            f"{what} needs {EXTRAS[key][0]}, which is installed and cannot be imported ({reason}): {install(key)}"
        ) from error


def missing_extra(module: str, what: str, otherwise: str = "") -> str:
    """The message for a module of `EXTRAS` that is not installed."""
    ending = f", {otherwise}" if otherwise else ""
    return f"{what} needs {EXTRAS[module][0]}, which is not installed: {install(module)}{ending}"


def install(module: str) -> str:
    """The command that installs a module of `EXTRAS`, with the bounds of its version where they are known."""
    package, extra = EXTRAS[module]
    bound = _bound(package, extra)
    return f'pip install "{PROJECT}[{extra}]"' + (f" ({bound})" if bound else "")


def _bound(package: str, extra: str) -> str | None:
    """The requirement of an installed project: `peft>=0.18`."""
    try:
        requirements = metadata.requires(PROJECT) or []
    except metadata.PackageNotFoundError:
        return None
    for requirement in requirements:
        needed, _, condition = requirement.partition(";")
        name = re.match(r"[\w.-]+", needed.strip())
        same = name is not None and _plain(name.group()) == _plain(package)
        if same and re.search(rf"extra\s*==\s*['\"]{extra}['\"]", condition):
            return needed.strip()
    return None


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
