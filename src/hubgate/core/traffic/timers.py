"""Timers for what nearly always ends in time: deadlines of requests."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

import msgspec

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
        self.pending: dict[Timer | TimeLimit, None] = {}
        self._handle: asyncio.TimerHandle | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        """Known after the first timer. To ask for it takes a system call in Python 3.11."""
        self.looks_at = math.inf
        """When the pending timers are looked at next. For an earlier one, `look_at` must be called."""

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call back at a time on the clock, or shortly after it."""
        timer = Timer(self.pending, when, callback)
        self.pending[timer] = None
        if when < self.looks_at:
            self.look_at(when)
        return timer

    def look_at(self, when: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self.looks_at = when
        self.loop = asyncio.get_running_loop()
        self._handle = self.loop.call_later(when - self._clock(), self._look)

    def _look(self) -> None:
        self._handle, self.looks_at = None, math.inf
        now = self._clock()
        for timer in [timer for timer in self.pending if timer.when <= now]:
            if timer in self.pending:  # not cancelled by one before
                timer.fire()
        if self.pending and self._handle is None:
            self.look_at(max(min(timer.when for timer in self.pending), now + _GRAIN))


class Timer(msgspec.Struct, eq=False):
    """See `Timers.call_at`."""

    _pending: dict[Timer | TimeLimit, None]
    when: float
    _callback: Callable[[], None]

    def cancel(self) -> None:
        """Do not call back. Does nothing if it was called or cancelled."""
        self._pending.pop(self, None)
        self._callback = _nothing  # as asyncio does, so that a cancelled timer keeps no objects

    def fire(self) -> None:
        callback = self._callback
        self.cancel()
        callback()


def _nothing() -> None:
    """The callback of a timer that is over."""


class TimeLimit(msgspec.Struct, eq=False):
    """`asyncio.timeout`, in a fifth of its time: within it, the task is cancelled when the time is over.

    Raises:
        TimeoutError: the time is over.
    """

    timers: Timers
    when: float
    _task: asyncio.Task[Any] | None = None
    _cancelling: int = 0
    """How often the task was cancelled before."""
    _is_over: bool = False

    def __enter__(self) -> None:
        self._task = task = asyncio.current_task(self.timers.loop)
        assert task is not None  # noqa: S101 - a coroutine runs in a task
        self._cancelling = task.cancelling()
        timers, when = self.timers, self.when
        timers.pending[self] = None
        if when < timers.looks_at:
            timers.look_at(when)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self.timers.pending.pop(self, None)
        task, self._task = self._task, None
        if self._is_over and task is not None:
            cancelled = task.uncancel() > self._cancelling
            if kind is asyncio.CancelledError and not cancelled:
                raise TimeoutError from error

    def fire(self) -> None:
        self._is_over = True
        self.timers.pending.pop(self, None)
        if self._task is not None:
            self._task.cancel()
