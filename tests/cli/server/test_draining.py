"""A gateway that stops: what has reached its machine is served, and no connection stays open."""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from running_gateway import RunningGateway
from yarl import URL

from hubgate.cli.server.draining import ignore_new_connections

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
    return socket.create_connection((url.host, url.port or 0), timeout=240)


@contextmanager
def stopping(gateway: RunningGateway) -> Iterator[None]:
    """Keep the event loop busy, so that it notices that it has to stop before it notices clients."""
    busy, connected = threading.Event(), threading.Event()

    def be_busy() -> None:
        busy.set()
        connected.wait(240)
        gateway._server.handle_exit(signal.SIGINT, None)
        time.sleep(0.15)  # uvicorn looks every 0.1 seconds whether to stop

    gateway._loop.call_soon_threadsafe(be_busy)
    assert busy.wait(240)
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


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels have no filters")
@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_client_that_connects_while_the_port_closes_is_refused_and_never_reset(
    family: socket.AddressFamily, host: str
) -> None:
    with socket.create_server((host, 0), family=family) as listener, ThreadPoolExecutor(1) as late:
        address = listener.getsockname()[:2]
        with socket.create_connection(address) as early:
            early.sendall(b"a")
            assert ignore_new_connections(listener)
            refused = late.submit(socket.create_connection, address, 30)
            accepted, _ = listener.accept()
            listener.setblocking(False)
            with accepted, pytest.raises(BlockingIOError):
                listener.accept()
            listener.close()
            assert isinstance(refused.exception(), ConnectionRefusedError)
