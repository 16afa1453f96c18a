"""Small payloads are processed on the event loop, large ones in a thread."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from hubgate.core.off_loop import LARGE_BYTES, off_loop, total


class Thing:
    """Anything that can be watched."""


async def test_little_is_done_here_and_much_in_another_thread() -> None:
    assert await off_loop(LARGE_BYTES, threading.get_ident) == threading.get_ident()
    assert await off_loop(LARGE_BYTES + 1, threading.get_ident) != threading.get_ident()


@pytest.mark.parametrize("size", [0, LARGE_BYTES + 1])
async def test_arguments_are_passed_and_errors_are_raised(size: int) -> None:
    assert await off_loop(size, int, "ff", base=16) == 255
    with pytest.raises(ValueError, match="invalid literal"):
        await off_loop(size, int, "x")


async def test_nothing_is_left_to_the_collector() -> None:
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


def test_the_total_is_that_of_all_items() -> None:
    assert total([b"ab", b"", b"c"]) == 3
