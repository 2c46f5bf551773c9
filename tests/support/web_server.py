"""Small web servers on addresses of this machine, which count what they are asked."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

LOOPBACK = "127.0.0.1/32"


class WebServer(ThreadingHTTPServer):
    """Answers paths by functions of the request's handler."""

    daemon_threads = True
    answers: dict[str, Callable[[BaseHTTPRequestHandler], None]]
    requests: list[tuple[str, str]]
    """Path and `Host` of each request."""

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, WebServer)
        self.server.requests.append((self.path, self.headers["Host"]))
        answers = self.server.answers
        (answers.get(self.path) or answers[self.path.partition("?")[0]])(self)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(
    answers: dict[str, Callable[[BaseHTTPRequestHandler], None]],
    host: str = "127.0.0.1",
    certificate: Path | None = None,
    port: int = 0,
) -> Iterator[WebServer]:
    """A server on `host`, with TLS if there is a certificate (with its key in the same file)."""
    server = WebServer((host, port), _Handler)
    server.answers, server.requests = answers, []
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def content(data: bytes, length: int | None = None) -> Callable[[BaseHTTPRequestHandler], None]:
    """Answers with a file, which says that it is `length` bytes long."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        if length != -1:
            handler.send_header("Content-Length", str(len(data) if length is None else length))
        handler.end_headers()
        with suppress(OSError):  # the other side has enough
            handler.wfile.write(data)

    return answer


def leads_to(address: str) -> Callable[[BaseHTTPRequestHandler], None]:
    """Answers with a redirect."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", address)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def in_drops(handler: BaseHTTPRequestHandler) -> None:
    """Sends one byte of a header every few milliseconds, for ever."""
    try:
        while True:
            handler.wfile.write(b"H")
            handler.wfile.flush()
            time.sleep(0.02)
    except OSError:
        pass


def certificate_of(host: str, folder: Path) -> Path:
    """A certificate for a name, signed by itself, with its key in the same file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / f"{host}.pem"
    path.write_bytes(certificate.public_bytes(pem) + plain)
    return path
