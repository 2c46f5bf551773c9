"""Files of the web: limited in size and time, and from hosts that may be asked, whatever leads to them."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from web_server import LOOPBACK, certificate_of, content, in_drops, leads_to, serving

from blip2_train.data.storage.web import WebLimits, fetch, is_incomplete, is_public, result_name
from blip2_train.errors import ConfigError, ShardError

HERE = WebLimits(private_networks=(LOOPBACK,), seconds=5.0, most_bytes=100_000)


def test_the_content_of_a_file_arrives() -> None:
    data = bytes(range(256)) * 300
    with serving({"/a%20b.jpg?k=1&x=%C3%A4": content(data), "/open": content(data, -1)}) as server:
        assert fetch(f"http://127.0.0.1:{server.port}/a b.jpg?k=1&x=ä", HERE) == data
        assert fetch(f"HTTP://127.0.0.1:{server.port}/open", HERE) == data
        assert server.requests[0] == ("/a%20b.jpg?k=1&x=%C3%A4", f"127.0.0.1:{server.port}")


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1", "10.2.3.4", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "::1", "fe80::1", "fc00::1", "::", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "fec0::1",
        "64:ff9b:1::a00:1", "::10.0.0.1",
    ],
)  # fmt: skip
def test_hosts_that_are_not_public_are_refused(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))
    with pytest.raises(
        ConfigError, match=f"http://somewhere/a.jpg is at {ipaddress.ip_address(text)}, which is not public; give"
    ):
        fetch("http://somewhere/a.jpg", resolve=lambda host, port: [text])


@pytest.mark.parametrize("text", ["8.8.8.8", "151.101.1.1", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_hosts_of_the_internet_are_public(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


def test_one_private_address_among_public_ones_refuses_the_name() -> None:
    with pytest.raises(ConfigError, match=r"is at 10\.0\.0\.1, which is not public"):
        fetch("http://somewhere/a.jpg", resolve=lambda host, port: ["8.8.8.8", "2606:4700::1111", "10.0.0.1"])


def test_a_network_that_is_allowed_is_the_only_one() -> None:
    with serving({"/a": content(b"here")}) as server:
        address = f"http://127.0.0.1:{server.port}/a"
        with pytest.raises(ConfigError, match=r"is at 127\.0\.0\.1, which is not public"):
            fetch(address)
        with pytest.raises(ConfigError, match="which is not public"):
            fetch(address, WebLimits(private_networks=("127.0.0.2/32", "::1/128")))
        assert server.requests == []
        assert fetch(address, WebLimits(private_networks=("0.0.0.0/0",))) == b"here"
    with pytest.raises(ConfigError, match=r"private network 'localhost' is none .*; write for instance"):
        WebLimits(private_networks=("localhost",))
    with pytest.raises(ConfigError, match="limits of the web must be above 0"):
        WebLimits(seconds=0.0)


def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    """A name that is resolved again could lead elsewhere the second time."""
    times: list[str] = []

    def resolve(host: str, port: int) -> Sequence[str]:
        times.append(host)
        return ["127.0.0.1" if len(times) == 1 else "127.0.0.2"]

    with serving({"/a": content(b"here")}) as server:
        assert fetch(f"http://images.example:{server.port}/a", HERE, resolve) == b"here"
        assert server.requests == [("/a", f"images.example:{server.port}")]
    assert times == ["images.example"]


def test_a_redirect_is_followed_and_checked_like_the_first_address() -> None:
    with serving({"/secret": content(b"secret")}, "127.0.0.2") as inner:
        answers = {
            "/a": leads_to("b"),
            "/b": leads_to("/c"),
            "/c": content(b"here"),
            "/in": leads_to(f"http://127.0.0.2:{inner.port}/secret"),
            "/file": leads_to("file:///etc/passwd"),
            "/round": leads_to("/round"),
        }
        with serving(answers) as server:
            at = f"http://127.0.0.1:{server.port}"
            assert fetch(f"{at}/a", HERE) == b"here"
            with pytest.raises(
                ConfigError, match=r"http://127\.0\.0\.2:\d+/secret is at 127\.0\.0\.2, which is not public"
            ):
                fetch(f"{at}/in", HERE)
            with pytest.raises(ConfigError, match="file:///etc/passwd is no address of an image"):
                fetch(f"{at}/file", HERE)
            with pytest.raises(ShardError, match="leads on more than 5 times"):
                fetch(f"{at}/round", HERE)
        assert inner.requests == []


def test_files_that_are_too_large_are_refused_as_soon_as_that_is_known() -> None:
    answers = {
        "/stated": content(b"x", 100_001),
        "/silent": content(b"x" * 300_000, -1),
        "/just": content(b"x" * 100_000),
    }
    with serving(answers) as server:
        for path in ("stated", "silent"):
            with pytest.raises(ShardError, match=rf"/{path} has more than 100,000 bytes"):
                fetch(f"http://127.0.0.1:{server.port}/{path}", HERE)
        assert len(fetch(f"http://127.0.0.1:{server.port}/just", HERE)) == 100_000


@pytest.mark.slow
@pytest.mark.parametrize("answer", [in_drops, lambda handler: time.sleep(2.0)], ids=["drops", "silence"])
def test_what_takes_too_long_is_given_up(answer: object) -> None:
    limits = WebLimits(private_networks=(LOOPBACK,), seconds=0.3)
    with serving({"/a": answer}) as server:  # type: ignore[dict-item]
        began = time.monotonic()
        with pytest.raises(ShardError, match=r"(was not there after 0\.3 s|timed out)"):
            fetch(f"http://127.0.0.1:{server.port}/a", limits)
        assert time.monotonic() - began < 1.5


def test_a_search_for_a_host_that_takes_too_long_is_given_up() -> None:
    began = time.monotonic()
    with pytest.raises(ShardError, match=r"was not there after 0\.2 s"):
        fetch("http://slow.example/a", WebLimits(seconds=0.2), lambda host, port: time.sleep(2.0) or [])  # type: ignore[func-returns-value]
    assert time.monotonic() - began < 1.5


def test_a_name_in_results_keeps_what_is_no_key_and_tells_addresses_apart() -> None:
    long = f"https://example.org/{'a' * 300}.jpg"
    for plain in ("https://example.org:8080/a b.jpg", "http://example.org", long):
        assert result_name(plain) == plain and not is_incomplete(plain), "it can be read again"
    queries = [
        f"https://{who}example.org/a.jpg{rest}"
        for who in ("me:secret@", "you:secr?t@", "him:secr#t@", "")
        for rest in ("?id=1", "?id=2", "?", "?a@b/c")
    ]
    queries += ["https://me:secret@example.org/a.jpg", "https://me:secret2@example.org/a.jpg"]
    names = [result_name(address) for address in queries]
    assert len({*names}) == len(names) and all(map(is_incomplete, names)), names
    assert all(name.startswith("https://example.org/a.jpg?…") and "secr" not in name for name in names)
    assert names == [result_name(f"{address}#part") for address in queries], "what is never sent is no part of it"
    assert result_name("https://example.org/a.jpg#top") == "https://example.org/a.jpg"
    assert not is_incomplete("images/a?….jpg")


def test_what_fails_is_one_line_without_secrets() -> None:
    def missing(handler: object) -> None:
        handler.send_error(404, "Not\tFound")  # type: ignore[attr-defined]

    with serving({"/gone": missing, "/cut": content(b"half", 8)}) as server:
        at = f"127.0.0.1:{server.port}"
        for address, error, words in (
            (f"http://{at}/gone?key=secret", ShardError, r"/gone\?… answers 404 Not Found; open it in a browser"),
            (f"http://{at}/cut?key=secret", ShardError, r"/cut\?… broke off after 4 of 8 bytes"),
            (f"http://me:secret@{at}/cut", ConfigError, rf"http://{at}/cut names a user; write https"),
            (f"https://{at}/gone?key=secret", ShardError, r"cannot be fetched \(.*SSL"),
            ("http:///a.jpg", ConfigError, "names no host"),
            ("s3://bucket/a.jpg", ConfigError, "s3://bucket/a.jpg is no address of an image; give http"),
            ("http://127.0.0.1:99999/", ConfigError, "is no address that can be read"),
            ("http://127.0.0.1:1/", ShardError, r"cannot be fetched \(Connection refused"),
            (f"http://127.{'a' * 70}/", ShardError, "is no name of a host"),
            ("http://[127.0.0.1]/", ConfigError, "is no address that can be read"),
        ):
            with pytest.raises(error, match=words) as caught:
                fetch(address, HERE)
            assert "secret" not in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ShardError, match=r"nowhere\.example has no IP address"):
        fetch("http://nowhere.example/", resolve=lambda host, port: [])


def test_certificates_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cryptography")
    certificate = certificate_of("images.example", tmp_path)

    def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    with serving({"/a": content(b"here")}, certificate=certificate) as server:
        address = f"https://images.example:{server.port}/a"
        with pytest.raises(ShardError, match="CERTIFICATE_VERIFY_FAILED"):
            fetch(address, HERE, resolve)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert fetch(address, HERE, resolve) == b"here"
        with pytest.raises(ShardError, match="CERTIFICATE_VERIFY_FAILED"):  # of another host
            fetch(f"https://other.example:{server.port}/a", HERE, resolve)
