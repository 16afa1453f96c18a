"""The way to a server, on the event loop that `hubgate serve` runs on where there is one."""

from __future__ import annotations

import asyncio

import pytest
from lookalikes import lookalike

from hubgate.domain.diagnosis import Step
from hubgate.upstreams.addresses import AddressRule
from hubgate.upstreams.reaching import reach

uvloop = pytest.importorskip("uvloop", reason="there is no uvloop for this platform")


def test_the_way_to_a_server_is_gone_on_uvloop_too() -> None:
    async def steps(url: str) -> list[Step]:
        return [step async for step in reach(url, AddressRule())]

    with lookalike("tei") as server, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(steps(server.url)) == [Step.ADDRESS, Step.DNS, Step.TCP]
