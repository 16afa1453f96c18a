"""Connecting to a server, also on uvloop, which `hubgate serve` uses where available."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from lookalikes import lookalike

from hubgate.domain.diagnosis import Step
from hubgate.upstreams.http.addresses import AddressRule
from hubgate.upstreams.http.connection import Connection
from hubgate.upstreams.http.dial import Origin, connect, reach

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Sequence

uvloop = pytest.importorskip("uvloop", reason="there is no uvloop for this platform")


def test_reach_works_on_uvloop() -> None:
    async def steps(url: str) -> list[Step]:
        return [step async for step in reach(url, AddressRule())]

    with lookalike("tei") as server, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(steps(server.url)) == [Step.ADDRESS, Step.DNS, Step.TCP]


async def test_reach_tries_the_second_address_like_calls_do() -> None:
    async def two(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.2", "127.0.0.1"]

    with lookalike("tei") as server:
        url = server.url.replace("127.0.0.1", "model.test")
        steps = [step async for step in reach(url, AddressRule(), resolve=two)]
    assert steps == [Step.ADDRESS, Step.DNS, Step.TCP]


def connections() -> int:
    return sum(type(one) is Connection for one in gc.get_objects())


@pytest.mark.parametrize("new_loop", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_cancelled_connection_attempt_leaves_no_connection(new_loop: Callable[[], AbstractEventLoop]) -> None:
    """Without relying on the garbage collector, whenever it is cancelled: here after 0 to 9 loop iterations."""

    async def cancel_after(turns: int, port: int) -> None:
        origin = Origin("127.0.0.1", port, is_tls=False, ca_bundle=None)
        attempt = asyncio.ensure_future(connect(origin, ["127.0.0.1"], "the server", 20.0, tls=False))
        for _ in range(turns):
            await asyncio.sleep(0)
        if not attempt.cancel():
            attempt.result().abort()
        await asyncio.wait([attempt])

    async def cancel_all(url: str) -> None:
        for turns in range(10):
            await cancel_after(turns, urlsplit(url).port or 0)
        for _ in range(3):  # asyncio reports a lost connection in the next turn
            await asyncio.sleep(0)

    gc.collect()
    gc.disable()
    before = connections()
    try:
        with lookalike("tei") as server, asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(cancel_all(server.url))
            assert connections() == before
    finally:
        gc.enable()
