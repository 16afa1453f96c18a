"""Data reaches the sockets together at the end of a turn, in order, and before a connection closes."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from hubgate.core.traffic.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LARGE = 1 << 20


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[asyncio.WriteTransport, socket.socket]]:
    """A transport, and the socket at its other end."""
    mine, other = socket.socketpair()
    other.setblocking(False)
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=mine)
    try:
        yield transport, other
    finally:
        transport.abort()
        other.close()


async def received(other: socket.socket, size: int) -> bytes:
    data = b""
    async with asyncio.timeout(30):
        while len(data) < size and (part := await asyncio.get_running_loop().sock_recv(other, LARGE)):
            data += part
    return data


async def test_writes_of_one_turn_are_sent_when_it_is_over() -> None:
    outbox = Outbox.of(asyncio.get_running_loop())
    async with connected() as (one, other_one), connected() as (two, other_two):
        outbox.write(one, b"1")
        outbox.write(two, b"head", b"body")
        for other in (other_one, other_two):
            with pytest.raises(BlockingIOError):
                other.recv(1)
        assert await received(other_one, 1) == b"1"
        assert other_two.recv(100) == b"headbody"


async def test_data_of_a_single_request_is_written_at_once() -> None:
    outbox = Outbox.of(asyncio.get_running_loop())
    outbox.requests = {"one"}
    async with connected() as (transport, other):
        outbox.write(transport, b"head", b"body")
        assert other.recv(100) == b"headbody"


async def test_writes_of_one_connection_keep_their_order() -> None:
    outbox = Outbox.of(asyncio.get_running_loop())
    async with connected() as (transport, other):
        for pieces in ((b"a",), (b"b", b"c"), (b"d", b"x" * LARGE), (b"e",)):
            outbox.write(transport, *pieces)
        assert await received(other, LARGE + 5) == b"abcd" + b"x" * LARGE + b"e"


async def test_a_connection_learns_in_the_same_turn_that_its_peer_does_not_read() -> None:
    outbox = Outbox.of(asyncio.get_running_loop())
    async with connected() as (transport, _):
        for _ in range(200):
            outbox.write(transport, b"x" * 60_000)
        assert transport.get_write_buffer_size() > LARGE


async def test_close_sends_what_was_written() -> None:
    outbox = Outbox.of(asyncio.get_running_loop())
    async with connected() as (transport, other):
        outbox.write(transport, b"the ", b"end")
        outbox.close(transport)
        assert await received(other, 100) == b"the end"


async def test_an_aborted_connection_does_not_keep_others_from_sending() -> None:
    outbox = Outbox.of(asyncio.get_running_loop())
    async with connected() as (one, _), connected() as (two, other):
        outbox.write(one, b"lost")
        outbox.write(two, b"sent")
        one.abort()
        assert await received(other, 4) == b"sent"


def test_an_outbox_goes_with_its_event_loop() -> None:
    loop = asyncio.new_event_loop()
    outbox = weakref.ref(Outbox.of(loop))
    assert Outbox.of(loop) is outbox()
    loop.close()
    del loop
    gc.collect()
    assert outbox() is None
