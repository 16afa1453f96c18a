"""Small payloads are processed on the event loop, large ones in a thread, long lists in slices."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from time import perf_counter
from typing import TYPE_CHECKING

import pytest

from hubgate.core.off_loop import LARGE_BYTES, SLICE_SECONDS, in_slices, off_loop, total

if TYPE_CHECKING:
    from collections.abc import Iterator


class Thing:
    """An object that supports weak references."""


async def test_processes_small_payloads_inline_and_large_ones_in_a_thread() -> None:
    assert await off_loop(LARGE_BYTES, threading.get_ident) == threading.get_ident()
    assert await off_loop(LARGE_BYTES + 1, threading.get_ident) != threading.get_ident()


@pytest.mark.parametrize("size", [0, LARGE_BYTES + 1])
async def test_passes_arguments_and_raises_errors(size: int) -> None:
    assert await off_loop(size, int, "ff", base=16) == 255
    with pytest.raises(ValueError, match="invalid literal"):
        await off_loop(size, int, "x")


async def test_releases_arguments_without_garbage_collection() -> None:
    def fail(thing: Thing) -> None:
        raise ValueError(thing)

    gc.disable()
    try:
        thing = Thing()
        watched = weakref.ref(thing)
        with pytest.raises(ValueError, match="Thing"):
            await off_loop(LARGE_BYTES + 1, fail, thing)
        del thing
        await off_loop(LARGE_BYTES + 1, int)  # the thread forgets what it did last
        assert watched() is None
    finally:
        gc.enable()


def test_total_sums_item_sizes() -> None:
    assert total([b"ab", b"", b"c"]) == 3


async def test_the_event_loop_runs_between_the_slices() -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def parts() -> Iterator[tuple[int, int]]:
        for number in range(5):
            until = perf_counter() + 2 * SLICE_SECONDS
            while perf_counter() < until:
                pass
            yield number, turns

    counting = asyncio.create_task(count_turns())
    done = await in_slices(parts())
    counting.cancel()
    assert [number for number, _ in done] == [0, 1, 2, 3, 4]
    assert [seen for _, seen in done] == [0, 1, 2, 3, 4]
