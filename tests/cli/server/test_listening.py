"""The address that the gateway listens on."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack

import pytest
import uvloop

from hubgate.cli.server.sockets import acceptors, listen
from hubgate.settings import InvalidSetting


@pytest.mark.parametrize("host", ["a" * 5000, "a..b", "..", "\udcff", "no.such.name.invalid", "198.51.100.1"])
def test_unusable_host_is_reported_as_an_invalid_setting(host: str) -> None:
    with pytest.raises(InvalidSetting, match="HUBGATE_HOST") as refused:
        listen(host, 0)
    assert ascii(host[:10]).strip("'") in str(refused.value)
    assert len(str(refused.value)) < 250


def test_clients_that_connect_at_once_are_accepted_within_a_few_turns_of_the_event_loop() -> None:
    clients, most_turns = 64, 10

    async def accept_all(listener: socket.socket) -> int:
        accepted, turns, loop = 0, 0, asyncio.get_running_loop()
        everyone: asyncio.Future[int] = loop.create_future()

        class Client(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                nonlocal accepted
                accepted += 1
                if accepted == clients:
                    everyone.set_result(turns)
                transport.close()

        def count_turns() -> None:
            nonlocal turns
            turns += 1
            if not everyone.done():
                loop.call_soon(count_turns)

        servers = [await loop.create_server(Client, sock=copy) for copy in acceptors(listener)]
        count_turns()
        turns_taken = await asyncio.wait_for(everyone, 240)
        for server in servers:
            server.close()
        return turns_taken

    with ExitStack() as stack:
        listener = stack.enter_context(listen("127.0.0.1", 0))
        for _ in range(clients):  # the kernel has them all before the loop begins
            stack.enter_context(socket.create_connection(listener.getsockname()))
        assert uvloop.run(accept_all(listener)) <= most_turns
