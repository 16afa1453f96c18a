"""Gateway keys with limits, and gateways that count them together."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from hubgate.domain.errors import KeyLimit
from hubgate.domain.records import Key
from hubgate.service.keys.shared_limits import SharedKeyLimits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubgate.domain.cluster_ports import KeyMinutes

GATEWAYS = 3


def key(requests: int | None = None, tokens: int | None = None) -> Key:
    return Key(
        id="0a1b2c3d",
        name="dify",
        digest=bytes(32),
        created_at=0.0,
        requests_per_minute=requests,
        tokens_per_minute=tokens,
    )


def limits_of_gateways(minutes: Sequence[KeyMinutes]) -> list[SharedKeyLimits]:
    """The limits of one gateway for each way to the server."""
    opened = []
    for one in minutes:
        limits = SharedKeyLimits()
        limits.share(one, lambda: GATEWAYS)
        opened.append(limits)
    return opened


async def admits(limits: SharedKeyLimits, asker: Key) -> bool:
    try:
        await limits.admit(asker, time.monotonic())
    except KeyLimit as full:
        return not 0 < (full.retry_after or 0) <= 61
    return True


async def until(limits: SharedKeyLimits, asker: Key, *, admitted: bool) -> None:
    while await admits(limits, asker) is not admitted:  # noqa: ASYNC110 - the other gateway waits for no answer
        await asyncio.sleep(0.01)
