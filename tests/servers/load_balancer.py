"""A load balancer for tests: each request goes to the next gateway, whichever connection it came on."""

from __future__ import annotations

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Sequence

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding"})


class LoadBalancer:
    """Serves while its context is open.

    Args:
        urls: of the gateways.
        admin_key: of all of them, for clients that sign in.
    """

    def __init__(self, urls: Sequence[str], admin_key: str) -> None:
        self.admin_key = admin_key
        self.answers: list[tuple[str, str]] = []
        """Method and path of each request, and the gateway that answered."""
        hosts = cycle([urlsplit(url).netloc for url in urls])
        turn = threading.Lock()
        answers = self.answers

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                with turn:
                    host = next(hosts)
                    answers.append((f"{self.command} {self.path}", host))
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                gateway = http.client.HTTPConnection(host, timeout=240)
                gateway.request(self.command, self.path, body, dict(self.headers))
                reply = gateway.getresponse()
                content = reply.read()
                gateway.close()
                self.send_response_only(reply.status)
                for name, value in reply.getheaders():
                    if name.lower() not in {*_HOP_BY_HOP, "content-length"}:
                        self.send_header(name, value)
                if reply.status != 204:
                    self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - names of the standard library

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Nothing is logged."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, name="load balancer")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
