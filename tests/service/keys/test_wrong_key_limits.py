"""Wrong keys are limited per address and per key id, in bounded memory."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from hubgate.service.keys.limits import MAX_WRONG_KEYS, WrongKeys
from hubgate.service.shared_values import SharedValues

if TYPE_CHECKING:
    from collections.abc import Iterable


class Tries:
    """Wrong keys on a clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._wrong_keys = WrongKeys(lambda: self.now, SharedValues())

    async def waits(self, tries: Iterable[tuple[str, str]]) -> list[float]:
        return [await self._wrong_keys.count(address, key_id) for address, key_id in tries]


async def test_address_over_the_limit_waits_for_the_rest_of_the_minute() -> None:
    tries = Tries()
    assert not any(await tries.waits([("192.0.2.1", "")] * MAX_WRONG_KEYS))
    tries.now += 20
    assert await tries.waits([("192.0.2.1", ""), ("192.0.2.2", "")]) == [40, 0]
    tries.now += 40
    assert await tries.waits([("192.0.2.1", "")]) == [0]


async def test_key_id_is_limited_across_all_addresses() -> None:
    tries = Tries()
    assert not any(await tries.waits((f"192.0.2.{n}", "0123abcd") for n in range(MAX_WRONG_KEYS)))
    assert await tries.waits([("198.51.100.1", "0123abcd"), ("198.51.100.1", "4567abcd")]) == [60, 0]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("-", "-", True),
    ],
)
async def test_ipv6_address_is_limited_by_its_network(one: str, other: str, *, same: bool) -> None:
    tries = Tries()
    await tries.waits([(one, "")] * MAX_WRONG_KEYS)
    assert bool((await tries.waits([(other, "")]))[0]) is same


async def test_many_addresses_use_bounded_memory_and_the_latest_are_kept() -> None:
    tries = Tries()
    spread = [f"10.{n // 65536}.{n // 256 % 256}.{n % 256}" for n in range(10_001)]
    await tries.waits((address, "") for address in spread for _ in range(MAX_WRONG_KEYS))
    assert await tries.waits([(spread[0], ""), (spread[-1], "")]) == [0, 60]


async def test_clock_set_back_does_not_extend_the_wait() -> None:
    tries = Tries()
    await tries.waits([("192.0.2.1", "")] * (MAX_WRONG_KEYS + 1))
    tries.now -= 3600
    assert await tries.waits([("192.0.2.1", "")]) == [0]


async def test_log_shows_the_address_and_key_id_of_wrong_keys(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        await Tries().waits([("192.0.2.1", "0123abcd")] * 3 * MAX_WRONG_KEYS)
    assert caplog.messages == [
        "more than 20 wrong keys in a minute from 192.0.2.1",
        "more than 20 wrong keys in a minute for key id 0123abcd",
    ]
