"""Timers for what nearly always ends in time: deadlines of requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from hubgate.domain.ports import Clock

_GRAIN = 0.01
"""Seconds by which a timer may be late, so that many timers cause no more than a hundred looks a second."""


class Timers:
    """Many timers on one timer of the event loop: to set one and to cancel it are two operations on a dictionary.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._pending: dict[Timer, None] = {}
        self._handle: asyncio.TimerHandle | None = None
        self._looks_at = 0.0
        """When `_handle` fires."""

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call back at a time on the clock, or shortly after it."""
        timer = Timer(self._pending, when, callback)
        self._pending[timer] = None
        if self._handle is None or when < self._looks_at:
            self._look_at(when)
        return timer

    def _look_at(self, when: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._looks_at = when
        self._handle = asyncio.get_running_loop().call_later(when - self._clock(), self._look)

    def _look(self) -> None:
        self._handle = None
        now = self._clock()
        for timer in [timer for timer in self._pending if timer.when <= now]:
            if timer in self._pending:  # not cancelled by one before
                callback = timer.callback
                timer.cancel()
                callback()
        if self._pending and self._handle is None:
            self._look_at(max(min(timer.when for timer in self._pending), now + _GRAIN))


class Timer:
    """See `Timers.call_at`."""

    __slots__ = ("_pending", "callback", "when")

    def __init__(self, pending: dict[Timer, None], when: float, callback: Callable[[], None]) -> None:
        self._pending = pending
        self.when = when
        self.callback = callback

    def cancel(self) -> None:
        """Do not call back. Does nothing if it was called or cancelled."""
        self._pending.pop(self, None)
        self.callback = _nothing  # as asyncio does, so that a cancelled timer keeps no objects


def _nothing() -> None:
    """The callback of a timer that is over."""


class TimeLimit:
    """`asyncio.timeout`, in a third of its time: within it, the task is cancelled when the time is over.

    Raises:
        TimeoutError: the time is over.
    """

    __slots__ = ("_cancelling", "_is_over", "_task", "_timer", "_timers", "_when")

    def __init__(self, timers: Timers, when: float) -> None:
        self._timers = timers
        self._when = when
        self._is_over = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in a task
        self._task = task
        self._cancelling = task.cancelling()
        self._timer = self._timers.call_at(self._when, self._end)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._timer.cancel()
        task = self._task
        del self._task, self._timer  # the timer calls back to this object
        if self._is_over and task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _end(self) -> None:
        self._is_over = True
        self._task.cancel()
