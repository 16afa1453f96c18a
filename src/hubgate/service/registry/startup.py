"""Background tasks: loading local models and checking endpoints, after the start and when a reply raises doubts."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine

from hubgate.core.traffic.replica import RECHECK_SECONDS
from hubgate.domain.errors import EndpointChanged, HubgateError
from hubgate.domain.ports import Clock

LOADING = "The model is loading."
_MAX_STATE_QUERIES = 4
"""How many endpoints' states are queried at the same time."""

_log = logging.getLogger(__name__)


class StartupTasks:
    """Tasks by endpoint name."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._may_recheck_at: dict[str, float] = {}
        self._running: dict[str, asyncio.Event] = {}
        """For each endpoint still to be checked: set once its server is known to run."""
        self._state_queries = asyncio.Semaphore(_MAX_STATE_QUERIES)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._unready: dict[str, str] = {}

    def unready(self) -> dict[str, str]:
        """The local endpoints that cannot answer, and why, by name."""
        return dict(self._unready)

    def load(self, name: str, request: Callable[[], Awaitable[object]]) -> None:
        """Load a local model with a first request. It is unready until that succeeds."""
        self._unready[name] = LOADING
        self._start(name, self._load(name, request))

    def check(
        self, name: str, check: Callable[[], Awaitable[object]], is_running: Callable[[], Awaitable[bool]]
    ) -> None:
        """Check a dedicated endpoint now if it `is_running`, else after its first reply to a call.

        A request would start a server that is scaled to zero, and cost money.
        """
        self._running[name] = asyncio.Event()
        self._start(name, self._check(name, check, is_running))

    def recheck(self, name: str, check: Callable[[], Awaitable[object]]) -> None:
        """Check an endpoint again now, unless it is being checked or was a short while ago."""
        now = self._clock()
        if self.checks(name) or now < self._may_recheck_at.get(name, -math.inf):
            return
        self._may_recheck_at[name] = now + RECHECK_SECONDS
        self._running[name] = asyncio.Event()
        self._start(name, self._run_check(name, check))

    def checks(self, name: str) -> bool:
        """Whether an endpoint is loaded or checked now, or will be after its first reply."""
        task = self._tasks.get(name)
        return task is not None and not task.done()

    def mark_running(self, name: str) -> None:
        """A server replied to a call."""
        if event := self._running.get(name):
            event.set()

    def mark_ready(self, name: str) -> None:
        self._unready.pop(name, None)

    def stop(self, name: str, *, validated: bool = True, enabled: bool = True) -> None:
        """Drop the tasks of an endpoint that is replaced or removed.

        Unless its replacement was `validated`, a pending check stays pending; and if that is `enabled`, a model that is
        loading continues to load.
        """
        if not validated and (name in self._running or (enabled and name in self._unready)):
            return
        self._running.pop(name, None)
        self._unready.pop(name, None)
        self._may_recheck_at.pop(name, None)
        if task := self._tasks.pop(name, None):
            task.cancel()

    async def settled(self) -> None:
        """Wait until every local model is ready or has failed to load."""
        loading = [task for name, task in self._tasks.items() if name in self._unready]
        await asyncio.gather(*loading, return_exceptions=True)

    async def close(self) -> None:
        """Cancel all tasks."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _start(self, name: str, task: Coroutine[None, None, None]) -> None:
        self._tasks[name] = asyncio.create_task(task, context=contextvars.Context())

    async def _load(self, name: str, request: Callable[[], Awaitable[object]]) -> None:
        try:
            await request()
        except HubgateError as error:
            self._unready[name] = str(error)
            _log.error("endpoint %s failed to load: %s", name, error)
        else:
            self.mark_ready(name)

    async def _check(
        self, name: str, check: Callable[[], Awaitable[object]], is_running: Callable[[], Awaitable[bool]]
    ) -> None:
        async with self._state_queries:
            running = await is_running()
        if not running:
            await self._running[name].wait()
        await self._run_check(name, check)

    async def _run_check(self, name: str, check: Callable[[], Awaitable[object]]) -> None:
        try:
            await check()
        except EndpointChanged as error:
            _log.error("endpoint %s takes no calls: %s", name, error)
        except HubgateError as error:
            _log.warning("endpoint %s could not be checked: %s", name, error)
        else:
            _log.info("endpoint %s still runs the registered model", name)
        finally:
            self._running.pop(name, None)
