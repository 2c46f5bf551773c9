"""Object storage on loopback that fails, or is not there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from fault_test.desk import Desk
from fault_test.table import row

GROUP = "remote"


@contextmanager
def storage(status: int) -> Iterator[dict[str, str]]:
    """A server that answers everything with one status; what a command's environment needs to ask it."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield keys(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()


def keys(port: int) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


FEW = ("data.source=s3://data/shards", "data.storage.attempts=2", "data.storage.first_pause=0.01")


def answers(status: int, name: str) -> None:
    """A row whose storage answers with one status."""

    def action(desk: Desk) -> str:
        with storage(status) as environment:
            return desk.refused("train", *desk.training(*FEW), words=r"s3://data", environment=environment)

    row(GROUP, name)(action)


answers(503, "storage that answers with 503 for ever")
answers(403, "storage that forbids everything")
answers(404, "a bucket that is not there")


@row(GROUP, "storage that nobody runs")
def nobody(desk: Desk) -> str:
    return desk.refused("train", *desk.training(*FEW), words=r"s3://data", environment=keys(9))


@row(GROUP, "shards are to be written to storage that nobody runs")
def written(desk: Desk) -> str:
    given = (f"source={desk.world.shards}", "output=s3://data/made", "workers=1")
    return desk.refused("make_shards", *given, words=r"s3://data", environment=keys(9))
