"""Changes that must complete in memory and in the store, even if the request that started them is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine


async def shielded(change: Coroutine[None, None, None]) -> None:
    """Complete a change. A cancelled caller waits for it, so that the next change starts after this one."""
    task = asyncio.ensure_future(change)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
