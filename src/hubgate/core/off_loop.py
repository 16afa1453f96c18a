"""Large work that does not block the event loop, in a thread or in slices, and work that outlasts its caller."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import perf_counter
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

LARGE_BYTES = 1 << 20
"""Up to this size JSON takes a few milliseconds, and a thread would cost more than it saves."""
SLICE_SECONDS = 0.002
_WORKER = ThreadPoolExecutor(1, thread_name_prefix="large-data")
"""One thread: parsers hold the interpreter lock, so several threads would only pass it around."""


def total(items: Sequence[bytes]) -> int:
    """The size of all items in bytes."""
    return sum(map(len, items))


async def off_loop(size: int, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Do work on about `size` bytes: in a thread if they are many."""
    return work(*args, **kwargs) if size <= LARGE_BYTES else await in_worker(work, *args, **kwargs)


async def in_worker(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Do work in the thread for large data."""
    return await asyncio.get_running_loop().run_in_executor(_WORKER, partial(work, *args, **kwargs))


async def in_slices(parts: Iterable[R]) -> list[R]:
    """Collect parts that take little time each, and let the event loop run every few milliseconds.

    For Python code on many small objects: a thread would only take the interpreter lock from the event loop.
    """
    done: list[R] = []
    until = perf_counter() + SLICE_SECONDS
    for part in parts:
        done.append(part)
        if perf_counter() >= until:
            await asyncio.sleep(0)
            until = perf_counter() + SLICE_SECONDS
    return done


async def outlasting(work: asyncio.Future[R]) -> R:
    """Wait for work that several callers may wait for.

    It goes on when a caller is cancelled, as with `asyncio.shield`. But if it then fails and nobody waits any more,
    asyncio does not log that.
    """
    try:
        await asyncio.wait({work})
    except asyncio.CancelledError:
        work.add_done_callback(_retrieve)
        raise
    return work.result()


async def shielded(change: Coroutine[None, None, None]) -> None:
    """Complete a change. A cancelled caller waits for it, so that the next change starts after this one."""
    task = asyncio.ensure_future(change)
    try:
        await outlasting(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def _retrieve(work: asyncio.Future[R]) -> None:
    if not work.cancelled():
        work.exception()
