"""An event loop with virtual time: sleeping takes no time, and waiting for nothing is an error."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


class Deadlock(AssertionError):
    """Every task waits, and no timer or socket will wake one."""


class _Selector(selectors.SelectSelector):
    """Advances the time instead of sleeping, once no socket is ready."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if ready := super().select(0):
            return ready
        if timeout is None:
            raise Deadlock
        self.now += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose `time` is the clock to inject."""

    def __init__(self) -> None:
        self._virtual_selector = _Selector()
        super().__init__(self._virtual_selector)

    def time(self) -> float:
        """Seconds since the loop was created."""
        return self._virtual_selector.now


def now() -> float:
    """The running loop's time, as a `Clock`."""
    return asyncio.get_running_loop().time()


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run in virtual time; the coroutine must leave no task behind."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(_run_without_leftovers(main))


async def _run_without_leftovers(main: Coroutine[Any, Any, T]) -> T:
    result = await main
    await asyncio.sleep(1e-6)  # lets cancelled tasks finish
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks left behind: {left}"
    return result
