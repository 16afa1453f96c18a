"""The way to a server, on the event loop that `hubgate serve` runs on where there is one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from lookalikes import lookalike

from hubgate.domain.diagnosis import Step
from hubgate.upstreams.http.addresses import AddressRule
from hubgate.upstreams.reachability import reach

if TYPE_CHECKING:
    from collections.abc import Sequence

uvloop = pytest.importorskip("uvloop", reason="there is no uvloop for this platform")


def test_the_way_to_a_server_is_gone_on_uvloop_too() -> None:
    async def steps(url: str) -> list[Step]:
        return [step async for step in reach(url, AddressRule())]

    with lookalike("tei") as server, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(steps(server.url)) == [Step.ADDRESS, Step.DNS, Step.TCP]


async def test_a_server_at_the_second_address_of_its_name_is_reached_as_calls_reach_it() -> None:
    async def two(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.2", "127.0.0.1"]

    with lookalike("tei") as server:
        url = server.url.replace("127.0.0.1", "model.test")
        steps = [step async for step in reach(url, AddressRule(), resolve=two)]
    assert steps == [Step.ADDRESS, Step.DNS, Step.TCP]
