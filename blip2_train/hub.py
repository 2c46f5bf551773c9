"""The Hugging Face hub: files of a repository, there and back, and what is done where nobody answers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from blip2_train.errors import CheckpointMismatch, ConfigError

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


def upload_files(repository: str, files: Mapping[str, Path | bytes], *, create: bool, private: bool) -> str:
    """Upload files to a model repository in one commit; returns the address of the commit.

    The token is that of the hub's client (`hf auth login`, or the variable HF_TOKEN), and is in no message.

    Args:
        repository: `owner/model`.
        files: Path or content of each file, by its name in the repository.
        create: Whether the repository is made if it is not there.
        private: Whether a new one is private; one that is there and public is refused.

    Raises:
        ConfigError: if there is no token, it may not do that, there is no such repository, or nobody answers.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if constants.is_offline_mode():
        raise ConfigError("HF_HUB_OFFLINE is set, so nothing can be uploaded; unset it, or pass --dry-run")
    if get_token() is None:
        raise ConfigError("there is no token for the hub; run `hf auth login`, or set HF_TOKEN to one that may write")
    api = HfApi(endpoint=constants.ENDPOINT)
    contents = {name: str(content) if isinstance(content, Path) else content for name, content in files.items()}
    try:
        if create:
            api.create_repo(repository, private=private, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise ConfigError(f"{repository} is there already and is public; make it private first, or omit --private")
        operations = [CommitOperationAdd(name, content) for name, content in contents.items()]
        commit = api.create_commit(repository, operations, commit_message="Upload an export of blip2_train")
    except ConfigError:
        raise
    except HFValidationError:
        raise ConfigError(f"--push {repository} is no name of a repository; write <owner>/<model>") from None
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        raise ConfigError(f"{constants.ENDPOINT} refuses: {_refusal(repository, status, create)}") from None
    except Exception as error:  # the hub's client raises whatever its transport raises
        reason = f"{constants.ENDPOINT} cannot be reached ({type(error).__name__})"
        raise ConfigError(f"{reason}; check the network, then push again") from None
    return str(commit.commit_url)


def _refusal(repository: str, status: int | None, create: bool) -> str:
    if status == 401:
        return "it does not know the token; run `hf auth login`, or set HF_TOKEN to one that may write"
    if status == 403:
        return f"the token may not write to {repository}; take one with the right to write, or a repository of yours"
    if status == 404 and not create:
        return f"there is no repository {repository}, or the token does not see it; pass --create to make it"
    return f"{repository} could not be written (HTTP {status}); try again later"
