"""Limits that hold at any moment, such as requests in flight, divided among gateways by leases.

Gateways that use a limit renew their leases twice a second, and each gets an equal part of it. One that uses it alone
gets all of it. So no call asks for anything, except the first after a while without any.

The rule: what gateways may hold together, as the server knows it, never exceeds the limit. A gateway whose lease
shrinks still holds what is in flight, and says so with its next question; until then the server counts what it had. A
gateway that wants more gets it when others have less. A question that was overtaken on its way changes nothing. The server
divides the limit of the newest configuration that it heard of, so a gateway that was cut off from the configuration gets
no part of an older one.

A gateway that cannot renew its lease goes on with its part of the limit by the number of gateways. It does so before
the lease ends at the server, which keeps that part free for half a minute. The limit can be exceeded by requests that
are still running: those of a gateway that cannot reach the server and has less from then on, or was suspended.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import math
from collections.abc import Callable
from weakref import WeakSet

from hubgate.core.traffic.contact import DEAD
from hubgate.core.traffic.slots import SharedLimits
from hubgate.domain.cluster_ports import LeaseQuestion, LeaseServer
from hubgate.domain.errors import StoreFailed

_RENEW_SECONDS = 0.5
_VALID_SECONDS = 4.0
"""For which a gateway uses a lease that it cannot renew. At the server it ends a second later."""
_ALONE_SECONDS = 6.0
"""After which it goes on with its part by the number of gateways, also if it had less."""
_BUSY_SECONDS = 10.0
"""After its last use, a gateway keeps its part for as long."""
_AGAIN_SECONDS = 0.02
"""Between questions of a gateway whose calls wait."""


class SharedLeases:
    """The leases of this gateway.

    Args:
        server: where gateways get them.
        limits: knows how many gateways there are.
        gateway: a name that no other gateway has, nor had before.
    """

    def __init__(self, server: LeaseServer, limits: SharedLimits, gateway: str) -> None:
        self.server = server
        self.limits = limits
        self.gateway = gateway
        self.numbers = itertools.count(1)
        """Of the questions of this gateway."""
        self._open: WeakSet[Lease] = WeakSet()
        self._renewing: asyncio.Task[None] | None = None

    def lease(self, key: str, limit: int) -> Lease:
        """This gateway's part of a limit, which `key` names for all gateways."""
        lease = Lease(self, key, limit)
        self._open.add(lease)
        return lease

    def start(self) -> None:
        """Renew leases until `close`."""
        self.limits.before_return = self._register
        self._renewing = asyncio.get_running_loop().create_task(self._renew())

    async def close(self) -> None:
        """Leave the other gateways the whole limits. No request may follow."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        await asyncio.gather(*(lease.end() for lease in list(self._open)))

    async def _register(self) -> None:
        """Report to the server what is held here, before it counts this gateway as one that is not alone."""
        await asyncio.gather(*(lease.register() for lease in list(self._open)))

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            for lease in list(self._open):
                lease.renew()


class Lease:
    """This gateway's part of one limit."""

    def __init__(self, shared: SharedLeases, key: str, limit: int) -> None:
        self._shared = shared
        self._clock = shared.limits.clock
        self._key = key
        self._total = limit
        self._granted = 0
        self._granted_at = -math.inf
        """When the question was asked that was answered last."""
        self._asked_first = math.inf
        """When the first question was asked since the limit was not used."""
        self._used_at = -math.inf
        self._asking: asyncio.Task[None] | None = None
        self.limit = 0
        """What may be held now."""
        self.held: Callable[[], int] = int
        """Returns what is held now."""
        self.on_change: Callable[[], None] = _ignore
        """Called when `limit` has changed."""

    def set_total(self, limit: int) -> None:
        """Divide another limit from now on. What is held may exceed it for a while."""
        self._total = limit
        self._apply()

    def detach(self) -> None:
        """Limit nothing from now on."""
        self.held, self.on_change = int, _ignore

    def used(self) -> None:
        """Note that something of it is used."""
        self._used_at = self._clock()

    def need(self) -> None:
        """Note that somebody waits, and ask for a part if there is none."""
        self.used()
        if not self.limit and self._asking is None and self._clock() >= self._granted_at + _AGAIN_SECONDS:
            self._ask(wants=True)

    def renew(self) -> None:
        """Ask again if it is used; otherwise leave it to others."""
        if self.held():
            self.used()
        is_busy = self._clock() < self._used_at + _BUSY_SECONDS
        if self._asking is None and (is_busy or self._asked_first < math.inf):
            self._ask(wants=is_busy)
        self._apply()

    async def register(self) -> None:
        """Ask again, if anything is held."""
        if self._asking is not None:
            await asyncio.wait({self._asking})
        if self._asking is None and (self.held() or self.limit):
            self._ask(wants=True)
        if self._asking is not None:
            await asyncio.wait({self._asking})

    async def end(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
        if self._asked_first < math.inf:
            await self._question(wants=False)

    def _ask(self, *, wants: bool) -> None:
        # In a context of its own: it does not belong to the caller that happens to start it.
        loop = asyncio.get_running_loop()
        self._asking = loop.create_task(self._question(wants=wants), context=contextvars.Context())

    async def _question(self, *, wants: bool) -> None:
        asked = self._clock()
        self._asked_first = min(self._asked_first, asked)
        if not wants:
            self.limit = 0  # before the server may give it to others
            self._granted = 0
            self.on_change()
        question = LeaseQuestion(
            key=self._key,
            gateway=self._shared.gateway,
            limit=self._total,
            version=self._shared.limits.version,
            holds=max(self.limit, self.held()),
            wants=wants,
            known_gateways=self._shared.limits.contact.gateways,
            was_away=self._shared.limits.contact.was_away,
            number=next(self._shared.numbers),
        )
        try:
            granted = await self._shared.server.lease(question)
        except StoreFailed:
            granted = -1
        self._asking = None
        if granted >= 0:
            self._granted, self._granted_at = granted, asked
            if not wants:
                self._asked_first = math.inf
        self._apply()
        if not wants and self._used_at >= asked:
            self.need()

    def _apply(self) -> None:
        limit = self._current()
        if limit != self.limit:
            self.limit = limit
            self.on_change()

    def _current(self) -> int:
        if self._asked_first == math.inf:
            return 0
        silent = self._clock() - max(self._granted_at, self._asked_first)
        if self._granted_at >= self._asked_first and silent < _VALID_SECONDS:
            return min(self._granted, self._total)
        contact = self._shared.limits.contact
        if not contact.gateways or (silent >= DEAD and not contact.shares):
            return 0
        share = self._total // contact.gateways
        return share if silent >= _ALONE_SECONDS else min(self._granted, share)


def _ignore() -> None:
    pass
