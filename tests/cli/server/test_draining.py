"""A gateway that stops: what has reached its machine is served, and no connection stays open."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from running_gateway import RunningGateway
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hubgate.settings import Settings


def embedding_request(gateway: RunningGateway) -> bytes:
    body = json.dumps({"model": "fake", "input": "a text"}).encode()
    lines = [
        "POST /v1/embeddings HTTP/1.1",
        "Host: gateway",
        f"Authorization: Bearer {gateway.admin_key}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def connect(gateway: RunningGateway) -> socket.socket:
    url = URL(gateway.url)
    assert url.host is not None
    return socket.create_connection((url.host, url.port or 0), timeout=60)


@contextmanager
def stopping(gateway: RunningGateway) -> Iterator[None]:
    """Keep the event loop busy, so that it notices that it has to stop before it notices clients."""
    connected = threading.Event()

    def be_busy() -> None:
        connected.wait(60)
        gateway._server.should_exit = True
        time.sleep(0.15)  # uvicorn looks every 0.1 seconds whether to stop

    gateway._loop.call_soon_threadsafe(be_busy)
    yield
    connected.set()


def whole_reply(client: socket.socket) -> bytes:
    """Everything until the gateway closes the connection."""
    with client.makefile("rb") as stream:
        return stream.read()


def test_clients_that_are_connecting_when_the_gateway_stops_are_served(settings: Settings) -> None:
    with RunningGateway(settings) as gateway:
        gateway.add()
        request = embedding_request(gateway)
        accepted = connect(gateway)
        assert gateway.request("GET", "/healthz").status == 200, (
            "a later connection is served: this one is, too"
        )
        with stopping(gateway):
            waiting = [connect(gateway) for _ in range(5)]
            for client in (*waiting, accepted):
                client.sendall(request)
        for client in (*waiting, accepted):
            with client:
                reply = whole_reply(client)
            assert reply.startswith(b"HTTP/1.1 200 "), reply
            assert b"\r\nconnection: close\r\n" in reply
