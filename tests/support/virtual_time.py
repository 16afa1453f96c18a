"""An event loop whose time is made up: sleeping takes none, and waiting for what never comes is an error."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


class Stuck(AssertionError):
    """Everybody waits, and nothing is going to happen."""


class _Selector(selectors.SelectSelector):
    """Instead of sleeping, moves the time on; but what has come over a socket comes first."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if ready := super().select(0):
            return ready
        if timeout is None:
            raise Stuck
        self.now += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """For tests of what waits. Its `time` is the clock to inject."""

    def __init__(self) -> None:
        self.made_up = _Selector()
        super().__init__(self.made_up)

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self.made_up.now


def now() -> float:
    """The running loop's time: a `Clock`."""
    return asyncio.get_running_loop().time()


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end in made-up time; nothing may be left behind."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(_tidy(main))


async def _tidy(main: Coroutine[Any, Any, T]) -> T:
    result = await main
    await asyncio.sleep(1e-6)  # for those who are ending
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"left behind: {left}"
    return result
