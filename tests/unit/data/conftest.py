"""A real S3 server for a test."""

from collections.abc import Iterator

import pytest
from s3_server import S3, running_s3


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    with running_s3(monkeypatch) as server:
        yield server
