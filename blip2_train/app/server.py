"""Serves the page: on this machine unless told otherwise, with limited uploads that go, and without any other site."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blip2_train.app.access import Access, is_local
from blip2_train.app.context import Context
from blip2_train.app.examples import EXAMPLES, SHOWN, write_examples
from blip2_train.app.models import Models, named_models, newest_exports
from blip2_train.errors import ConfigError
from blip2_train.system.extras import import_extra

UPLOAD = "20mb"
"""Largest file that the page takes."""
POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; font-src 'self' data:; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; connect-src 'self'; worker-src 'self' blob:; "
    "frame-ancestors 'self'; form-action 'self'; base-uri 'self'"
)
"""What a browser lets the page load and reach: this server. Gradio's own code is written into its pages."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the command was asked for."""

    models: Sequence[str] = ()
    """Named models; those below `outputs` come after them."""
    outputs: str = "outputs"
    folders: Sequence[str] = ()
    sets: Sequence[str] = ()
    host: str = "127.0.0.1"
    port: int = 7860
    """0 = a free one."""
    device: str = "cpu"
    dtype: str | None = None


@contextmanager
def served(settings: Settings) -> Iterator[tuple[Any, str]]:
    """A server that is ready to `run()`, and its address; what was uploaded and made is deleted at the end.

    Raises:
        ConfigError: if Gradio is missing, or the port cannot be used.
        Blip2TrainError: if a named model cannot be opened.
    """
    with tempfile.TemporaryDirectory(prefix="blip2_app_", ignore_cleanup_errors=True) as temporary:
        _keep_to_this_machine(Path(temporary))
        import_extra("gradio", "the web app")
        listening = _listen(settings.host, settings.port)
        with listening:
            application = make_application(settings, Path(temporary))
            import uvicorn

            options: dict[str, Any] = {"log_level": "warning", "timeout_graceful_shutdown": 2, "ws": "none"}
            server = uvicorn.Server(uvicorn.Config(application, **options))
            address, port = listening.getsockname()[:2]
            name = f"[{address}]" if ":" in address else address
            yield _Server(server, listening), f"http://{name}:{port}"


class _WithPolicy:
    """Adds `POLICY` to every answer of an ASGI application."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [(b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer")]
                message = {**message, "headers": [*message["headers"], *headers]}
            await send(message)

        await self._app(scope, receive, send_with_policy)


class _Server:
    """Runs a server at a socket until it is told to stop."""

    def __init__(self, server: Any, listening: socket.socket) -> None:
        self._server, self._listening = server, listening

    def run(self) -> None:
        """Serve until Ctrl-C, SIGTERM or `stop`."""
        if threading.current_thread() is threading.main_thread():
            # uvicorn sends the signal again at its end, which would kill the process before uploads are deleted
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        self._server.run(sockets=[self._listening])

    def stop(self) -> None:
        """End `run`, from another thread."""
        self._server.should_exit = True


def make_application(settings: Settings, temporary: Path) -> Any:
    """The page with all that surrounds it, as an ASGI application.

    Args:
        settings: What is served.
        temporary: Folder for uploads and results.

    Raises:
        Blip2TrainError: if a named model cannot be opened.
    """
    import fastapi
    import gradio as gr

    from blip2_train.app.page import STYLES, build_page, theme

    application = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    if is_local(settings.host):
        from starlette.middleware.trustedhost import TrustedHostMiddleware

        # else a site could lead its own name to this machine, and read the page as its own
        names = {"127.0.0.1", "localhost", "[::1]", settings.host}
        application.add_middleware(TrustedHostMiddleware, allowed_hosts=sorted(names))

    application.add_middleware(_WithPolicy)
    return gr.mount_gradio_app(
        application,
        build_page(_context(settings, temporary)),
        path="",
        footer_links=[],
        run_history=False,
        show_error=True,
        max_file_size=UPLOAD,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme(),
        css_paths=STYLES,
    )


def _context(settings: Settings, temporary: Path) -> Context:
    from blip2_train.app.browsing import WORLD

    named = named_models(settings.models)
    newest = [model for model in newest_exports(Path(settings.outputs)) if model.source not in settings.models]
    allowed = {*(model.source for model in (*named, *newest)), *settings.folders, *settings.sets, WORLD, EXAMPLES}
    access = Access(everything=is_local(settings.host), named=frozenset(allowed))
    models = Models(named, access, settings.device, settings.dtype)
    models.open_named()
    models.known += newest
    return Context(
        models=models,
        access=access,
        examples=write_examples(temporary / "examples")[:SHOWN],
        folders=settings.folders,
        sets=settings.sets,
        temporary=temporary,
    )


def _keep_to_this_machine(temporary: Path) -> None:
    """Have Gradio report nothing to anybody, and keep its files where they are deleted; before it is imported."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["GRADIO_TEMP_DIR"] = str(temporary / "files")


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens at an address.

    Raises:
        ConfigError: if the address cannot be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError(
            f"host {host}, port {port} cannot be used ({getattr(error, 'strerror', None) or error}); choose another "
            "--port (0 = a free one), or another --host"
        ) from None
    return listening
