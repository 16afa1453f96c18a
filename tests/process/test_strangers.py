"""The memory that unauthenticated clients can make the gateway use is bounded."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from gateway_process import GatewayProcess, Home

CONNECTIONS = 60
MOST_BYTES = 20_000_000
FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"
PART = b"x" * 65_536


def request(path: str, *headers: bytes) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: gate\r\n".encode() + b"".join(headers) + b"\r\n"


STRANGERS = {
    "a form as large as any body": request("/ui/sign-in", FORM, b"Content-Length: 33000000\r\n"),
    "a form of many chunks": request("/ui/preferences", FORM, b"Transfer-Encoding: chunked\r\n"),
    "a call without a key": request("/v1/embeddings", b"Content-Length: 33000000\r\n"),
    "a call with a wrong key": request(
        "/v1/embeddings", b"Authorization: Bearer wrong\r\n", b"Content-Length: 33000000\r\n"
    ),
    "a head without an end": b"POST /ui/sign-in HTTP/1.1\r\nHost: gate\r\nX-Long: " + b"y" * 60_000,
}


def resident(gateway: GatewayProcess) -> int:
    """Bytes of memory of the gateway's own process."""
    for line in Path(f"/proc/{gateway.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(line)


def push(connection: socket.socket, data: bytes) -> None:
    """Send as much as the gateway takes of 1 MiB."""
    connection.settimeout(0.2)
    try:
        for _ in range(16):
            connection.sendall(data)
    except OSError:  # it reads no more, or has closed
        pass


@pytest.mark.parametrize("stranger", STRANGERS)
def test_sixty_unauthenticated_connections_use_less_than_20_mb(home: Home, stranger: str) -> None:
    head = STRANGERS[stranger]
    part = b"10000\r\n" + PART + b"\r\n" if b"chunked" in head else PART
    with home.serve() as gateway, ExitStack() as stack:
        parts = urlsplit(gateway.url)
        assert parts.hostname is not None
        for _ in range(50):
            gateway.request("GET", "/ui/sign-in")
        before = resident(gateway)
        connections = [
            stack.enter_context(socket.create_connection((parts.hostname, parts.port or 0)))
            for _ in range(CONNECTIONS)
        ]

        def send(connection: socket.socket) -> int:
            connection.sendall(head)
            if not head.endswith(b"y"):
                push(connection, part)
            return resident(gateway)

        with ThreadPoolExecutor(CONNECTIONS) as pool:
            most = max(pool.map(send, connections))
        assert gateway.request("GET", "/healthz").status == 200
        assert max(most, resident(gateway)) - before < MOST_BYTES
