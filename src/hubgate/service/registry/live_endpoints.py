"""The endpoints in service, and those out of it that still answer who called before."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hubgate.domain.endpoint import Endpoint, Target
from hubgate.domain.errors import EndpointChanged, EndpointDisabled, EndpointNotFound
from hubgate.domain.ports import Model
from hubgate.service.inference.pipeline import Pipeline
from hubgate.service.registry.validation import refusal


@dataclass(slots=True, eq=False)
class Live:
    """An endpoint that can be called."""

    target: Target
    model: Model
    pipeline: Pipeline
    changed: str | None = None
    """Why it is not to be called, until an operator accepts what runs there now."""
    calls: int = 0
    """Being answered."""

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint itself."""
        return self.target.endpoint

    async def close(self) -> None:
        """Send away who waits, let what is in flight end, and free the model."""
        await self.pipeline.close()
        await self.model.close()


class LiveEndpoints:
    """By name. Used on one event loop."""

    def __init__(self) -> None:
        self._live: dict[str, Live] = {}
        self._retired: set[Live] = set()
        self._closing: set[asyncio.Task[None]] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._live

    def __iter__(self) -> Iterator[Live]:
        """By name, in its order."""
        return iter([self._live[name] for name in sorted(self._live)])

    def find(self, name: str) -> Live:
        """The endpoint of this name.

        Raises:
            EndpointNotFound: there is none.
        """
        live = self._live.get(name)
        if live is None:
            raise EndpointNotFound(name)
        return live

    def put(self, live: Live) -> None:
        """Let calls go to an endpoint, in place of the one of its name, if there is one."""
        self.retire(live.endpoint.name)
        self._live[live.endpoint.name] = live

    def retire(self, name: str) -> None:
        """Take an endpoint out of service; who is being answered, or waits, still is."""
        live = self._live.pop(name, None)
        if live is not None:
            self._retired.add(live)
            self._close_if_idle(live)

    @contextmanager
    def calling(self, live: Live) -> Iterator[None]:
        """A call to an endpoint, which is not closed until it is over.

        Raises:
            EndpointDisabled: its operator switched it off.
            EndpointChanged: another model runs there; no call goes to it until it is accepted.
        """
        self.admit(live)
        self.enter(live)
        try:
            yield
        except EndpointChanged as error:
            live.changed = error.message
            raise refusal(live.endpoint.name, error.message) from None
        finally:
            self.leave(live)

    def admit(self, live: Live) -> None:
        """See whether calls go to an endpoint.

        Raises:
            EndpointDisabled, EndpointChanged: see `calling`.
        """
        if live.changed is not None:
            raise refusal(live.endpoint.name, live.changed)
        if not live.endpoint.enabled:
            raise EndpointDisabled(live.endpoint.name)

    def enter(self, live: Live) -> None:
        """Count a call."""
        live.calls += 1

    def leave(self, live: Live) -> None:
        """A call is over."""
        live.calls -= 1
        if live in self._retired:
            self._close_if_idle(live)

    async def close(self) -> None:
        """Free every upstream. Calls in flight end with an error."""
        retired, self._retired = self._retired, set()
        await asyncio.gather(*(live.close() for live in (*self, *retired)), *self._closing)

    def _close_if_idle(self, live: Live) -> None:
        if not live.calls:
            self._retired.remove(live)
            task = asyncio.create_task(live.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
