"""The limits of gateway keys at several gateways: the script in virtual time, and on real servers that fail."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st
from laws import examples
from limited_keys import key
from servers.limit_server import LimitServer
from virtual_time import now, run


def most_in_a_minute(times: list[float]) -> int:
    return max((sum(start <= at < start + 60 for at in times) for start in times), default=0)


@settings(max_examples=examples(20))
@given(
    st.lists(st.sampled_from([0.0, 0.01, 0.3, 0.99, 1.0, 7.0, 30.0, 59.0, 60.0, 61.0, 200.0]), max_size=60),
    st.integers(1, 5),
    st.floats(0, 1),
)
def test_no_minute_has_more_requests_than_the_limit_and_waits_are_right(
    pauses: list[float], limit: int, offset: float
) -> None:
    async def main() -> None:
        server = LimitServer(offset=1_750_000_000 + offset)
        minutes = server.connection()
        admitted = []
        for pause in pauses:
            await asyncio.sleep(pause)
            exhausted = await minutes.admit(key(limit))
            if exhausted is None:
                admitted.append(now())
                continue
            assert exhausted.what == "requests"
            assert 0 < exhausted.seconds <= 61
            assert sum(at > now() - 61 for at in admitted) >= limit  # refused for a reason
            await asyncio.sleep(exhausted.seconds + 0.001)
            assert await minutes.admit(key(limit)) is None
            admitted.append(now())
        assert most_in_a_minute(admitted) <= limit
        assert len(server.minutes["0a1b2c3d"]) <= 62

    run(main())


def test_tokens_of_the_last_minute_refuse_requests() -> None:
    async def main() -> None:
        server = LimitServer()
        minutes = server.connection()
        limited = key(100, tokens=1000)
        await minutes.spend(limited.id, 600)
        assert await minutes.admit(limited) is None
        await asyncio.sleep(10)
        await minutes.spend(limited.id, 600)
        exhausted = await minutes.admit(limited)
        assert exhausted
        assert exhausted.what == "tokens"
        assert 50 <= exhausted.seconds <= 51
        await asyncio.sleep(exhausted.seconds + 0.001)
        assert await minutes.admit(limited) is None

    run(main())


def test_clock_that_is_set_back_blocks_no_key() -> None:
    async def main() -> None:
        server = LimitServer()
        minutes = server.connection()
        assert await minutes.admit(key(1)) is None
        server.offset -= 3600
        assert await minutes.admit(key(1)) is None
        assert await minutes.admit(key(1)) is not None

    run(main())
