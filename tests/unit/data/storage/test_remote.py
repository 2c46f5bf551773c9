"""Requests to remote storage: what they give, and what becomes of those that fail."""

from __future__ import annotations

import itertools

import pytest
from s3_server import S3

from blip2_train.data.storage.options import StorageOptions
from blip2_train.data.storage.remote import RemoteFailure, RemoteFile, Storage, TruncatedFile
from blip2_train.errors import ConfigError, ShardError

CONTENT = bytes(range(256)) * 40


def storage(attempts: int = 4, timeout: float = 1.0) -> Storage:
    return Storage(StorageOptions(attempts=attempts, first_pause=0.01, timeout=timeout))


@pytest.fixture
def file(s3: S3) -> RemoteFile:
    s3.put("a/0.tar", CONTENT)
    (files,) = storage().find("s3://data/a/0.tar")
    s3.requests.clear()
    return files


@pytest.mark.slow
def test_files_are_listed_and_read(s3: S3, file: RemoteFile) -> None:
    assert (file.url, file.size, file.name) == ("s3://data/a/0.tar", len(CONTENT), "0.tar") and file.version
    s3.put("a/1.tar", b"one")
    s3.put("a/b/2.tar", b"two")
    assert [files.name for files in storage().find("s3://data/a")] == ["0.tar", "1.tar"]
    assert [files.name for files in storage().find("s3://data/**/*.tar")] == ["0.tar", "1.tar", "2.tar"]
    assert storage().find("s3://data/none") == [] == storage().find("s3://nobucket/a")
    assert storage().read(file, 300, 700) == CONTENT[300:700] and storage().read(file) == CONTENT
    with storage().open(file) as opened:
        opened.seek(250)
        assert opened.read(10) == CONTENT[250:260] and opened.read() == CONTENT[260:]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["500", "503", "slow", "cut"])
def test_temporary_failures_are_retried(fault: str, s3: S3, file: RemoteFile) -> None:
    faults = itertools.chain([fault, fault], itertools.repeat(""))
    s3.fault = lambda *_: next(faults)
    assert storage().read(file, 10, 5000) == CONTENT[10:5000]
    assert s3.gets("0.tar") == 3


@pytest.mark.slow
def test_what_fails_for_ever_is_named(s3: S3, file: RemoteFile, caplog: pytest.LogCaptureFixture) -> None:
    s3.fault = lambda *_: "500"
    reading = storage(attempts=2)
    for _ in range(2):
        with pytest.raises(RemoteFailure, match=r"no answer in 2 attempts.*Internal Server Error"):
            reading.read(file, 0, 9)
    with pytest.raises(ShardError, match=r"s3://data/a/0.tar.*3 requests in a row.*data.storage") as caught:
        reading.read(file, 0, 9)
    assert "\n" not in str(caught.value) and len(s3.requests) == 6
    assert caplog.text.count("attempt 2 follows") == 3


@pytest.mark.slow
def test_final_errors_are_not_retried(s3: S3, file: RemoteFile) -> None:
    s3.put("a/0.tar", CONTENT[:500])
    assert storage().read(file, 10, 400) == CONTENT[10:400]
    s3.requests.clear()
    for start, end in ((400, 600), (600, 700)):
        with pytest.raises(TruncatedFile, match=rf"it has 500 bytes, {end} are needed"):
            storage().read(file, start, end)
    assert s3.gets("0.tar") == 2
    s3.delete("a/0.tar")
    with pytest.raises(FileNotFoundError):
        storage().read(file, 0, 9)
    assert s3.gets("0.tar") == 3


def test_a_protocol_without_a_driver_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"nonsense:// cannot be reached.*use s3://"):
        storage().find("nonsense://data/a")


@pytest.mark.parametrize(
    ("setting", "value"),
    [("attempts", 0), ("timeout", 0), ("cache_gb", -1), ("bad_shards", "ignore"), ("read_ahead_mb", 30_000)],
)
def test_settings_that_cannot_be(setting: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"data.storage.{setting}"):
        StorageOptions(**{setting: value})  # type: ignore[arg-type]
