"""A stand-in for the Hugging Face Hub: what its client asks of it, in a thread of the test."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "c" * 40


class HubServer(ThreadingHTTPServer):
    """files: by "ORG/REPO/path"; requests: (method, path) of all; private: of created repositories;
    refuse: an HTTP status for everything, 0 for none"""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.private: dict[str, bool] = {}
        self.refuse = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> HubServer:
        assert isinstance(self.server, HubServer)
        return self.server

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def read(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def json(self, value: Any) -> None:
        self.answer(200, json.dumps(value).encode(), Content_Type="application/json")

    def do_POST(self) -> None:
        body, path = self.read(), self.path.partition("?")[0]
        self.hub.requests.append(("POST", path))
        if self.hub.refuse:
            self.answer(self.hub.refuse)
        elif path == "/api/repos/create":
            content = json.loads(body)
            name = f"{content['organization']}/{content['name']}"
            self.hub.private[name] = content.get("private") or content.get("visibility")
            self.json({"url": f"{self.hub.url}/{name}"})
        elif path == "/api/validate-yaml":
            self.json({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            self.json(
                {
                    "files": [
                        {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for f in json.loads(body)["files"]
                    ]
                }
            )
        elif "/commit/" in path:
            repository = path.removeprefix("/api/models/").partition("/commit/")[0]
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    content = base64.b64decode(entry["value"]["content"])
                    self.hub.files[f"{repository}/{entry['value']['path']}"] = content
            self.json({"success": True, "commitOid": COMMIT,
                       "commitUrl": f"{self.hub.url}/{repository}/commit/{COMMIT}"})  # fmt: skip
        else:
            self.answer(404)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.requests.append((self.command, path))
        if self.hub.refuse:
            self.answer(self.hub.refuse)
            return
        repository, _, file = path.removeprefix("/").partition("/resolve/")
        content = self.hub.files.get(f"{repository}/{file.partition('/')[2]}")
        exists = any(name.startswith(f"{repository}/") for name in self.hub.files)
        if content is None:
            code = "EntryNotFound" if exists else "RepoNotFound"
            self.answer(404, X_Error_Code=code)
            return
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        self.answer(200, content, ETag=etag, X_Repo_Commit=COMMIT)

    def do_HEAD(self) -> None:
        self.do_GET()


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """A server that runs within the block."""
    with HubServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
