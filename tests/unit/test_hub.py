import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from blip2_train import hub
from blip2_train.errors import CheckpointMismatch


@pytest.fixture(autouse=True)
def nobody_listens(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The hub is asked for, at a port where nobody is."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    hub._silence.cache_clear()
    yield
    hub._silence.cache_clear()


def test_a_silent_hub_gets_one_request(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with pytest.raises(CheckpointMismatch, match=r"owner/model .*\(http://127.0.0.1:9 does not answer\)"):
                hub.fetch_files("owner/model", ["*.json"])
    assert constants.is_offline_mode()
    assert [record.message for record in caplog.records] == [
        "http://127.0.0.1:9 does not answer (ConnectError): only what is in the local cache is used"
    ]


def test_what_is_here_asks_nobody(tmp_path: Path) -> None:
    hub.find_hub(str(tmp_path))
    assert not constants.is_offline_mode()


def test_what_was_set_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointMismatch, match="HF_HUB_OFFLINE is set"):
        hub.fetch_files("owner/model", ["*.json"])
