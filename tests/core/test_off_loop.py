"""Small payloads are processed on the event loop, large ones in a thread."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from hubgate.core.off_loop import LARGE_BYTES, off_loop, total


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
