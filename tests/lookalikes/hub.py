"""The Hub's routes for downloads."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMIT = "c" * 40
TOKEN = "hf_made_up_for_this_test"


class Hub(ThreadingHTTPServer):
    """A small Hub, all of whose models have the same files.

    Those of the organisations gated, broken, private and absent answer as such models do, all others are public.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.files = files
        self.asked: list[str] = []
        self.tokens: set[str | None] = set()
        self.ranges: list[str] = []
        self.breaks_after: dict[str, int] = {}
        """The connection breaks once, after this many bytes of a file."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class HubHandler(BaseHTTPRequestHandler):
    """The three routes of a download."""

    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        files = self.server.files
        self.server.asked.append(self.path)
        self.server.tokens.add(self.headers.get("Authorization"))
        if "/gated/" in self.path:
            return self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
        if "/broken/" in self.path:
            return self.answer(500, b"")
        if "/private/" in self.path and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, b"", {"X-Error-Code": "RepoNotFound"})
        if "/absent/" in self.path:
            return self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})
        name = self.path.partition("/resolve/")[2].partition("/")[2]
        if "/resolve/" in self.path and name not in files:
            return self.answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        if "/resolve/" in self.path:
            return self.send_file(name)
        if "/tree/" in self.path:
            return self.answer(
                200,
                json.dumps(
                    [
                        {"type": "file", "path": path, "size": len(content), "oid": path}
                        for path, content in files.items()
                    ]
                ).encode(),
            )
        siblings = [{"rfilename": path} for path in files]
        return self.answer(200, json.dumps({"id": "a/b", "sha": COMMIT, "siblings": siblings}).encode())

    def answer(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, *, length: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(length or len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_file(self, name: str) -> None:
        """A file, or the requested rest of it."""
        body = self.server.files[name]
        etag = hashlib.sha1(body, usedforsecurity=False).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
        wanted = self.headers.get("Range", "")
        if wanted:
            self.server.ranges.append(wanted)
            first = int(wanted.removeprefix("bytes=").rstrip("-"))
            headers["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
            return self.answer(206, body[first:], headers)
        if self.command == "GET" and (stop := self.server.breaks_after.pop(name, None)):
            self.close_connection = True
            return self.answer(200, body[:stop], headers, length=len(body))
        return self.answer(200, body, headers)

    def log_message(self, *args: object) -> None:
        """Log nothing."""


@contextmanager
def running_hub(files: dict[str, bytes]) -> Iterator[Hub]:
    """A running Hub."""
    with Hub(files) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
