"""A small stand-in for the API of the Hugging Face hub on this machine: what uploading needs of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

TOKENS = {"hf_writes": 200, "hf_reads_only": 403}
"""Known tokens, and how the hub answers an attempt to write with each."""


class Hub:
    """Its repositories, and the requests that came."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.requests: list[str] = []
        """Method and path of each."""
        self.address = ""
        self._objects: dict[str, bytes] = {}
        """Large files by their SHA-256."""

    def answer(self, method: str, path: str, token: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Status and content of the answer to a request."""
        if path.startswith("/objects/"):
            self._objects[path.removeprefix("/objects/")] = body
            return 200, {}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if (status := TOKENS.get(token, 401)) != 200:
            return status, {"error": "no"}
        if path == "/api/repos/create":
            content = json.loads(body)
            name = f"{content['organization']}/{content['name']}" if content.get("organization") else content["name"]
            private = bool(content.get("private") or content.get("visibility") == "private")
            self.private.setdefault(name, private)  # of one that is there it stays
            self.repositories.setdefault(name, {})
            return 200, {"url": f"{self.address}/{name}"}
        name = "/".join(path.removeprefix("/api/models").strip("/").split("/")[:2]).removesuffix(".git")
        if name not in self.repositories:
            return 404, {"error": "Repository not found"}
        if method == "GET" and path.rstrip("/") == f"/api/models/{name}":
            return 200, {"id": name, "private": self.private[name], "tags": [], "siblings": []}
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            modes = ("lfs" if file["path"].endswith(".safetensors") else "regular" for file in files)
            known = zip(files, modes, strict=True)
            return 200, {
                "files": [
                    {"path": f["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None} for f, mode in known
                ]
            }
        if path.endswith("/info/lfs/objects/batch"):
            upload = [
                {**one, "authenticated": True, "actions": {"upload": {"href": f"{self.address}/objects/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return 200, {"transfer": "basic", "objects": upload}
        if "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.repositories[name][value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    self.repositories[name][value["path"]] = self._objects[value["oid"]]
            return 200, {
                "success": True,
                "commitOid": "1" * 40,
                "commitUrl": f"{self.address}/{name}/commit/{'1' * 40}",
            }
        return 404, {"error": f"this stand-in knows no {method} {path}"}


@contextmanager
def hub_server() -> Iterator[Hub]:
    """The stand-in, while it runs."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            body = self._body()
            path = self.path.partition("?")[0]
            hub.requests.append(f"{self.command} {path}")
            token = (self.headers.get("authorization") or "").removeprefix("Bearer ")
            status, content = hub.answer(self.command, path, token, body)
            answer = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            if status == 404 and "Repository" in str(content):
                self.send_header("x-error-code", "RepoNotFound")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer)

        def _body(self) -> bytes:
            if self.headers.get("transfer-encoding", "") != "chunked":
                return self.rfile.read(int(self.headers.get("content-length") or 0))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        do_GET = do_POST = do_PUT = do_HEAD = _handle

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
