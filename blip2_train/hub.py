"""The Hugging Face hub: files of a repository, and what is done where nobody answers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from blip2_train.errors import CheckpointMismatch

_LOGGER = logging.getLogger(__name__)
_SECONDS_TO_ANSWER = 10.0


def find_hub(name: str) -> None:
    """Check that the hub answers before `name` is requested; if not, its client works from the local cache.

    The client alone would request every file again and again, for minutes: on a cluster, machines that compute often
    have no way out. Does nothing if `name` is a local path.
    """
    if not Path(name).expanduser().exists():
        _silence()


def fetch_files(name: str, patterns: Sequence[str]) -> Path:
    """The local copy of a repository's files; downloads what is missing, if the hub answers.

    Args:
        name: Hub id, `owner/model`.
        patterns: Which files, `*.json` and the like.

    Raises:
        CheckpointMismatch: if it is neither in the cache nor can be fetched.
    """
    from huggingface_hub import snapshot_download

    why = _silence()
    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except Exception as error:  # the hub's client raises whatever its transport raises
        raise CheckpointMismatch(
            f"{name} is no local path, and as a hub id it could not be fetched ({why or type(error).__name__}); check "
            "the name and the network, or give a local folder"
        ) from error


@cache
def _silence() -> str:
    """Why the hub is not used; empty if it is. Checked once, which may take ten seconds."""
    from huggingface_hub import constants, get_session

    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    try:
        get_session().head(constants.ENDPOINT, timeout=_SECONDS_TO_ANSWER)
    except Exception as error:
        constants.HF_HUB_OFFLINE = True  # what the client and transformers look at
        message = f"{constants.ENDPOINT} does not answer"
        _LOGGER.warning("%s (%s): only what is in the local cache is used", message, type(error).__name__)
        return message
    return ""
