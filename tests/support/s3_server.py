"""A real S3 server on this machine (moto's), and a way to it that can be made bad."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.request import Request, urlopen

import boto3
import pytest
from fork_server import stop_fork_server
from moto.server import ThreadedMotoServer

from blip2_train.data.storage import drivers

Fault = Callable[[str, str, int], str]
"""What happens to a request, by its method, its path and its number from 0: `""`, `500`, `503`, `slow` or `cut`."""
SLOW = 3.0
"""Seconds after which a slow answer has still not come."""


class S3:
    """The server, and the requests that came by way of it."""

    def __init__(self, port: int) -> None:
        self.requests: list[tuple[str, str]] = []
        """Method and path of each."""
        self.sent = 0
        """Bytes of all answers."""
        self.fault: Fault = lambda method, path, number: ""
        self.port = port

    def put(self, key: str, content: bytes) -> None:
        """Write an object into the bucket `data`, past the faults."""
        self.client.put_object(Bucket="data", Key=key, Body=content)

    def delete(self, key: str) -> None:
        """Remove an object."""
        self.client.delete_object(Bucket="data", Key=key)

    def upload(self, folder: Path, prefix: str) -> None:
        """Write the files of a folder."""
        for path in folder.iterdir():
            if path.is_file():
                self.put(f"{prefix}/{path.name}", path.read_bytes())

    def content(self, prefix: str) -> dict[str, bytes]:
        """The objects below a prefix."""
        listed = self.client.list_objects_v2(Bucket="data", Prefix=prefix).get("Contents", [])
        return {
            entry["Key"].removeprefix(prefix): self.client.get_object(Bucket="data", Key=entry["Key"])["Body"].read()
            for entry in listed
        }

    @property
    def client(self) -> Any:
        """A client that goes to the server directly."""
        keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "us-east-1"}
        return boto3.client("s3", endpoint_url=f"http://127.0.0.1:{self.port}", **keys)

    def gets(self, suffix: str) -> int:
        """How many times objects whose key ends so were read."""
        return sum(method == "GET" and path.partition("?")[0].endswith(suffix) for method, path in self.requests)


@contextmanager
def running_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """A server with an empty bucket `data`, which the environment names."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    s3 = S3(server.get_host_and_port()[1])
    way = ThreadingHTTPServer(("127.0.0.1", 0), _handler(s3, server.get_host_and_port()[1]))
    way.daemon_threads = True
    Thread(target=way.serve_forever, daemon=True).start()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{way.server_address[1]}",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    drivers._connected.cache_clear()
    stop_fork_server()  # one of an earlier test has that one's environment
    s3.client.create_bucket(Bucket="data")
    try:
        yield s3
    finally:
        drivers._connected.cache_clear()
        urlopen(Request(f"http://127.0.0.1:{s3.port}/moto-api/reset", method="POST")).close()
        way.shutdown()
        way.server_close()
        server.stop()


def _handler(s3: S3, port: int) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = s3.fault(self.command, self.path, len(s3.requests))
            s3.requests.append((self.command, self.path))
            if fault in ("500", "503"):
                self.send_response(int(fault))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if fault == "slow":
                time.sleep(SLOW)
                self.close_connection = True
                return
            server = http.client.HTTPConnection("127.0.0.1", port)
            server.request(self.command, self.path, body, dict(self.headers))
            answer = server.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("server", "date", "connection", "transfer-encoding", "content-length"):
                    self.send_header(name, value)
            head = self.command == "HEAD"
            self.send_header("Content-Length", answer.getheader("Content-Length", "0") if head else str(len(content)))
            self.end_headers()
            if fault == "cut":
                content = content[: len(content) // 2]
                self.close_connection = True
            self.wfile.write(content)
            s3.sent += len(content)
            server.close()

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on

        def log_message(self, *_: object) -> None:
            pass

    return Handler
