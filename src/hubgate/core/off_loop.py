"""Work on large data that does not block the event loop: in a thread, or in slices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
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
    if size <= LARGE_BYTES:
        return work(*args, **kwargs)
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
