"""Work on large data, in a thread, so that it does not block the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

LARGE_BYTES = 1 << 20
"""Up to this size JSON takes a few milliseconds, and a thread would cost more than it saves."""
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
