"""Connections of strangers give way to calls with a key and to health checks."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from running_gateway import RunningGateway
from yarl import URL

if TYPE_CHECKING:
    from hubgate.settings import Settings

MOST = 8
HALF_A_HEAD = b"GET / HTTP/1.1\r\nHost: gateway\r\nX-"
DRIPPED_FORM = (
    b"POST /ui/sign-in HTTP/1.1\r\nHost: gateway\r\nContent-Length: 1000\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\n\r\nkey="
)


def connect(
    stack: ExitStack, gateway: RunningGateway, data: bytes, source: str = "127.0.0.1"
) -> socket.socket:
    at = URL(gateway.url)
    client = socket.create_connection((str(at.host), at.port or 0), timeout=240, source_address=(source, 0))
    client.sendall(data)
    return stack.enter_context(client)


def is_closed(client: socket.socket) -> bool:
    """Whether the gateway has closed the connection; waits for that only if it has."""
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


@pytest.mark.parametrize("data", [HALF_A_HEAD, DRIPPED_FORM], ids=["half a head", "a dripped form"])
def test_strangers_shut_out_neither_callers_nor_health_checks(settings: Settings, data: bytes) -> None:
    with RunningGateway(replace(settings, max_connections=MOST)) as gateway, ExitStack() as stack:
        gateway.add()
        for number in range(3 * MOST):
            connect(stack, gateway, data)
            if number % MOST == 0:  # also lets the gateway read what came before
                assert gateway.request("GET", "/healthz").status == 200
        for _ in range(3):
            assert gateway.request("GET", "/healthz").status == 200
            assert gateway.request("GET", "/readyz").status == 200
            body = {"model": "fake", "input": "a text"}
            assert gateway.request("POST", "/v1/embeddings", body).status == 200


def test_call_with_a_key_keeps_its_place(settings: Settings) -> None:
    with RunningGateway(replace(settings, max_connections=MOST)) as gateway, ExitStack() as stack:
        gateway.add()
        head = (
            f"POST /v1/embeddings HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {gateway.admin_key}\r\n"
        )
        caller = connect(stack, gateway, f"{head}Content-Length: 34\r\n\r\n".encode() + b'{"model": ')
        assert gateway.request("GET", "/healthz").status == 200  # the head has been read
        for _ in range(3 * MOST):
            connect(stack, gateway, HALF_A_HEAD)
        assert gateway.request("GET", "/healthz").status == 200
        caller.sendall(b'"fake", "input": "text"}')
        assert caller.recv(12) == b"HTTP/1.1 200"


@pytest.mark.parametrize(("trusted", "closed"), [("", 2), ("127.0.0.0/8", 0), ("*", 0)])
def test_pending_connections_of_an_address_are_bounded_but_for_a_trusted_proxy(
    settings: Settings, trusted: str, closed: int
) -> None:
    bounded = replace(settings, max_pending_per_address=4, trusted_proxies=trusted)
    with RunningGateway(bounded) as gateway, ExitStack() as stack:
        other = connect(stack, gateway, HALF_A_HEAD, "127.0.0.3")
        strangers = [connect(stack, gateway, HALF_A_HEAD, "127.0.0.2") for _ in range(6)]
        assert gateway.request("GET", "/healthz").status == 200
        while sum(map(is_closed, strangers)) < closed:
            assert gateway.request("GET", "/healthz").status == 200
        assert sum(map(is_closed, strangers)) == closed
        assert not is_closed(other)
