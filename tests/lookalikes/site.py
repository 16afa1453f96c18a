"""The base of the look-alikes of Hugging Face's own APIs: a small server that can be made to fail."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from lookalikes.model import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LIMITED = {"RateLimit": '"api";r=0;t=55', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}
FAULTS: dict[str, Answer] = {
    "wrong-token": Answer(401, {"error": "Invalid credentials in Authorization header"}),
    "no-right": Answer(403, {"error": "Forbidden: missing permissions: inference.endpoints.write"}),
    "no-payment": Answer(402, {"error": "Payment Required: add a payment method"}),
    "absent": Answer(404, {"error": "Not Found"}),
    "gone": Answer(410, "is no longer supported"),
    "limited": Answer(429, {"error": "Too many requests"}, LIMITED),
    "limited-without-a-word": Answer(429, ""),
    "failing": Answer(500, {"error": "Internal Error"}),
    "gateway": Answer(
        502, b"<html><body><h1>502 Bad Gateway</h1></body></html>", {"Content-Type": "text/html"}
    ),
    "strange": Answer(418, {"error": "I am a teapot"}),
    "page": Answer(200, b"<!doctype html><html>Please sign in.</html>", {"Content-Type": "text/html"}),
    "not-json": Answer(200, b"{"),
    "moved": Answer(307, b"", {"Location": "/api/models/openai-community/gpt2"}),
    "last-one": Answer(200, [], LIMITED),
    "other-json": Answer(200, [["nothing", {"of": "this"}], None]),
}


@dataclass(frozen=True)
class Seen:
    """A request to a look-alike."""

    method: str
    path: str
    query: dict[str, list[str]]
    token: str | None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def json(self) -> Any:
        """The decoded body; `None` if there is none, or it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


@dataclass
class _Cut:
    method: str
    after: bool
    times: int


class Site(ThreadingHTTPServer):
    """A running look-alike. `asked` can be read while it runs."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[Seen] = []
        self._fault: str | None = None
        self._only = ""
        self._method: str | None = None
        self._cut: _Cut | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"

    def fail(self, fault: str | None, *, only: str = "", method: str | None = None) -> None:
        """Fail (see `FAULTS`) for paths that contain `only`, of one method or all; `None` stops failing."""
        assert fault is None or fault in FAULTS
        self._fault, self._only, self._method = fault, only, method

    def cut(self, method: str, *, after: bool, times: int = 1) -> None:
        """Close the connection without a reply, before or after the next `times` requests are carried out."""
        self._cut = _Cut(method, after, times)

    def respond(self, seen: Seen) -> Answer | None:
        """The reply to a request; `None` to close the connection instead."""
        self.asked.append(seen)
        if self._fault and self._only in seen.path and self._method in (None, seen.method):
            return FAULTS[self._fault]
        cut = self._cut
        if cut is None or not cut.times or cut.method != seen.method:
            return self.reply(seen)
        cut.times -= 1
        if cut.after:
            self.reply(seen)
        return None

    def reply(self, seen: Seen) -> Answer:
        """The reply without a fault."""
        raise NotImplementedError

    @contextmanager
    def running(self) -> Iterator[None]:
        """Serve while the context is open."""
        with self:
            thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            try:
                yield
            finally:
                self.shutdown()
                thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        sent = {name.lower(): value for name, value in self.headers.items()}
        answer = self.server.respond(Seen(self.command, parts.path, parse_qs(parts.query), token, body, sent))
        if answer is None:
            self.close_connection = True
            return
        headers = {"Content-Type": answer.content_type, "Content-Length": str(len(answer.raw))}
        self.send_response(answer.status)
        for name, value in {**headers, **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.raw)

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - names that http.server calls

    def log_message(self, *args: object) -> None:
        """Log nothing."""
