"""Whether Weights & Biases can be reached without asking: found out before it is, as it would ask on the terminal."""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from blip2_train.errors import ConfigError

_WITHOUT_LOGIN = {"offline", "disabled", "dryrun"}
_OFFLINE = "or pass logger.wandb.offline=true, which writes into the run folder (`wandb sync` sends it later)"


def require_login(environment: Mapping[str, str] = os.environ) -> None:
    """Refuse a logger that would ask for a key; nothing is contacted.

    Args:
        environment: Variables of the process.

    Raises:
        ConfigError: if there is neither a key nor a login on this machine.
    """
    if environment.get("WANDB_MODE", "").lower() in _WITHOUT_LOGIN:
        return
    if environment.get("WANDB_API_KEY") or environment.get("WANDB_IDENTITY_TOKEN_FILE"):
        return
    host = urlsplit(environment.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    if not any(_has_login(file, host) for file in _netrc_files(environment)):
        raise ConfigError(
            f"logger=wandb has no key for {host}: set WANDB_API_KEY, log in once by `wandb login`, {_OFFLINE}"
        )


def _netrc_files(environment: Mapping[str, str]) -> list[Path]:
    if named := environment.get("NETRC"):
        return [Path(named).expanduser()]
    return [Path.home() / ".netrc", Path.home() / "_netrc"]


def _has_login(file: Path, host: str) -> bool:
    try:
        return netrc.netrc(str(file)).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return False
