"""Replies whose head the server repeats are read as the parser reads them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_server import raw_server

from hubgate.domain.errors import HubgateError
from hubgate.upstreams.http.addresses import AddressRule
from hubgate.upstreams.http.known_head import head_to_repeat
from hubgate.upstreams.http.messages import HttpRequest
from hubgate.upstreams.http.pool import PooledClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

HEAD = b"HTTP/1.1 200 OK\r\nServer: s\r\nContent-Length: %d\r\nContent-Type: application/json\r\n\r\n"
CLOSE = b"<close>"


def reply(body: bytes, head: bytes = HEAD) -> bytes:
    return head % len(body) + body


@asynccontextmanager
async def served(*replies: Sequence[bytes]) -> AsyncIterator[tuple[PooledClient, str, list[int]]]:
    """A client, and a server that sends the pieces of one reply for each request, and closes after `CLOSE`.

    The list has the number of the connection on which each request came.
    """
    left, came, connections = [list(pieces) for pieces in replies], [], 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        mine = connections
        try:
            while await reader.readuntil(b"\r\n\r\n{}"):
                came.append(mine)
                for piece in left.pop(0):
                    if piece == CLOSE:
                        return
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.002)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    client = PooledClient(AddressRule())
    try:
        async with raw_server(answer) as port:
            yield client, f"http://127.0.0.1:{port}/", came
    finally:
        await client.close()


async def ask(client: PooledClient, url: str, bound: int | None = None) -> object:
    request = HttpRequest(method="POST", url=url, body=b"{}", timeout=20.0, max_reply_bytes=bound)
    try:
        got = await client.send(request)
    except HubgateError as error:
        return type(error), error.cause
    return got.status, dict(got.headers), got.body


BODIES = st.binary(max_size=300)
HEADS = st.sampled_from(
    [
        HEAD,
        HEAD.replace(b"Content-Length", b"content-length"),
        HEAD.replace(b"Server: s", b"Server: other"),
        HEAD.replace(b"Server: s", b"Content-Length: %d"),
        HEAD.replace(b"200 OK", b"503 Busy"),
        HEAD.replace(b"Server: s", b"Connection: close"),
        HEAD.replace(b"Server: s", b"Content-Encoding: gzip"),
    ]
)


@st.composite
def pieces(draw: st.DrawFn) -> list[bytes]:
    body, head = draw(BODIES), draw(HEADS)
    whole = head % ((len(body),) * head.count(b"%d")) + body
    damage = draw(st.sampled_from([b"", b"", b"", b"x", CLOSE]))
    # Nothing comes after a whole reply, not even its end: it could arrive when the next request is already sent.
    last = len(whole) - 1
    if damage == CLOSE:
        last = draw(st.integers(0, last))
        whole = whole[:last]
    else:
        whole += damage
    cuts = sorted(draw(st.lists(st.integers(0, last), max_size=3)))
    ends = [*cuts, len(whole)]
    parts = [whole[start:end] for start, end in zip([0, *cuts], ends, strict=True)]
    return [part for part in parts if part] + [CLOSE] * (damage == CLOSE)


@settings(max_examples=60)
@given(st.lists(pieces(), min_size=1, max_size=6))
def test_replies_on_one_connection_are_read_as_on_connections_of_their_own(
    replies: list[list[bytes]],
) -> None:
    async def on_one() -> list[object]:
        async with served(*replies) as (client, url, _):
            return [await ask(client, url) for _ in replies]

    async def on_each() -> list[object]:
        found = []
        for one in replies:
            async with served(one) as (client, url, _):
                found.append(await ask(client, url))
        return found

    assert asyncio.run(on_one()) == asyncio.run(on_each())


async def test_a_repeated_head_is_read_without_the_parser() -> None:
    bodies = [b"[1]", b"[]", b"x" * 100_000]
    async with served(*([reply(body)] for body in bodies)) as (client, url, came):
        for body in bodies:
            expected = {"server": "s", "content-length": str(len(body)), "content-type": "application/json"}
            assert await ask(client, url) == (200, expected, body)
        (destination,) = client._destinations.values()
        assert destination.last_head._missed == 0
        assert came == [1, 1, 1]


async def test_bytes_after_a_reply_with_a_known_head_end_the_connection() -> None:
    async with served([reply(b"1")], [reply(b"2") + b"HTTP"], [reply(b"3")]) as (client, url, came):
        assert [(await ask(client, url))[2] for _ in range(3)] == [b"1", b"2", b"3"]  # type: ignore[index]
        assert came == [1, 1, 2]


async def test_a_reply_with_a_known_head_is_bounded() -> None:
    async with served([reply(b"1")], [reply(b"x" * 20)], [reply(b"3")]) as (client, url, _):
        await ask(client, url, bound=10)
        assert "unreadable" in str((await ask(client, url, bound=10))[1])  # type: ignore[index]
        assert (await ask(client, url, bound=10))[2] == b"3"  # type: ignore[index]


async def test_heads_that_all_differ_are_looked_up_now_and_then() -> None:
    count = 40
    heads = [HEAD.replace(b"Server: s", b"Server: %d" % number) for number in range(count)]
    async with served(*([reply(b"1", head)] for head in heads)) as (client, url, _):
        for number in range(count):
            found = await ask(client, url)
            assert found[1]["server"] == str(number)  # type: ignore[index]


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 103 Early Hints\r\n\r\n" + HEAD % 1,
        b"HTTP/1.1 200 OK\r\nContent-Length : 1\r\n\r\n1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1 \r\n\r\n1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n",
    ],
)
def test_other_heads_are_not_remembered(data: bytes) -> None:
    assert head_to_repeat(data, {b"content-length": b"1"}) is None
