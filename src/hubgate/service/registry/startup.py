"""What goes on in the background after the start: local models are loaded, and dedicated ones looked at."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine

from hubgate.domain.errors import EndpointChanged, HubgateError

LOADING = "The model is loading."
_MOST_ASKED = 4
"""Questions about states at the same time."""

_log = logging.getLogger(__name__)


class Starting:
    """Jobs by the name of the endpoint that they are about."""

    def __init__(self) -> None:
        self._answers: dict[str, asyncio.Event] = {}
        """What ends the wait for an answer of those that are to be looked at."""
        self._asking = asyncio.Semaphore(_MOST_ASKED)
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._unready: dict[str, str] = {}

    def unready(self) -> dict[str, str]:
        """The local endpoints that do not answer, and why, by name."""
        return dict(self._unready)

    def load(self, name: str, answer: Callable[[], Awaitable[object]]) -> None:
        """Let a local model answer once; until then it is not ready."""
        self._unready[name] = LOADING
        self._begin(name, self._load(name, answer))

    def look(
        self, name: str, look: Callable[[], Awaitable[object]], runs: Callable[[], Awaitable[bool]]
    ) -> None:
        """Look whether a dedicated endpoint is as it was registered: if it `runs` at once, else when it has answered.

        To ask one that sleeps would wake it, and cost money. One that cannot be asked is no reason for anything.
        """
        self._answers[name] = asyncio.Event()
        self._begin(name, self._look(name, look, runs))

    def answered(self, name: str) -> None:
        """A server has answered a call, so it runs."""
        if answer := self._answers.get(name):
            answer.set()

    def ready(self, name: str) -> None:
        """It answers."""
        self._unready.pop(name, None)

    def stop(self, name: str, *, proved: bool = True, serves: bool = True) -> None:
        """What was found out of an endpoint at the start is of no use for the one that takes its place.

        Unless that one was `proved`, what was not yet looked at is looked at all the same; and while it `serves`, a
        model that loads goes on loading.
        """
        if not proved and (name in self._answers or (serves and name in self._unready)):
            return
        self._answers.pop(name, None)
        self._unready.pop(name, None)
        if task := self._jobs.pop(name, None):
            task.cancel()

    async def settled(self) -> None:
        """Wait until every local model answers or has failed."""
        loading = [task for name, task in self._jobs.items() if name in self._unready]
        await asyncio.gather(*loading, return_exceptions=True)

    async def close(self) -> None:
        """End what is still going on."""
        for task in self._jobs.values():
            task.cancel()
        await asyncio.gather(*self._jobs.values(), return_exceptions=True)

    def _begin(self, name: str, job: Coroutine[None, None, None]) -> None:
        self._jobs[name] = asyncio.create_task(job)

    async def _load(self, name: str, answer: Callable[[], Awaitable[object]]) -> None:
        try:
            await answer()
        except HubgateError as error:
            self._unready[name] = str(error)
            _log.error("endpoint %s does not answer: %s", name, error)
        else:
            self.ready(name)

    async def _look(
        self, name: str, look: Callable[[], Awaitable[object]], runs: Callable[[], Awaitable[bool]]
    ) -> None:
        async with self._asking:
            known = await runs()
        if not known:
            await self._answers[name].wait()
        try:
            await look()
        except EndpointChanged as error:
            _log.error("endpoint %s is not served: %s", name, error)
        except HubgateError as error:
            _log.warning("endpoint %s could not be checked: %s", name, error)
        else:
            _log.info("endpoint %s is as it was registered", name)
        finally:
            self._answers.pop(name, None)
