"""This gateway among those of its database."""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import replace

from hubgate import __version__
from hubgate.core.traffic.slots import SharedLimits
from hubgate.domain.errors import StoreFailed
from hubgate.domain.records import Gate
from hubgate.service.cluster.following import Applier, Follower
from hubgate.service.cluster.gates import Gates
from hubgate.store.cluster.feed import SqlFeed

REPORT_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Member:
    """Follows the changes of other gateways, and reports that it does."""

    def __init__(
        self,
        name: str,
        feed: SqlFeed,
        gates: Gates,
        applier: Applier,
        limits: SharedLimits | None = None,
        *,
        version: int,
    ) -> None:
        """`version` is the newest one that memory agrees with; `limits` follow it."""
        self._gate = Gate(
            id=secrets.token_hex(8),
            name=name,
            software=__version__,
            version=version,
            started_at=time.time(),
        )
        self._feed = feed
        self._limits = limits
        self._gates = gates
        self._draining: Callable[[], bool] = lambda: False
        self._states: Callable[[], str] = str
        self._reported_at = -REPORT_SECONDS
        self._follower = Follower(feed, applier, version, self._report)
        gates.wake = self._follower.wake
        gates.own_id = self._gate.id

    @property
    def stale_seconds(self) -> float:
        """Seconds since the changes of other gateways were last read."""
        return self._follower.stale_seconds

    async def join(self, draining: Callable[[], bool], states: Callable[[], str]) -> None:
        """Start to follow. Changes that are answered from now on are known here.

        Args:
            draining: returns whether this gateway is about to stop.
            states: returns the states of its endpoints in JSON.

        Raises:
            StoreFailed: the database cannot be used.
        """
        self._draining, self._states = draining, states
        await self._feed.report(self._gate)  # from now on, changes wait for this gateway
        if any(gate.name == self._gate.name and self._is_other(gate) for gate in await self._gates.all()):
            _log.warning(
                "another gateway of this database is named %s, too: set HUBGATE_GATE_NAME", self._gate.name
            )
        await self._follower.catch_up()  # with those from before
        self._follower.start()

    async def leave(self) -> None:
        """Stop to follow."""
        await self._follower.close()
        with contextlib.suppress(StoreFailed):
            await self._feed.leave(self._gate.id)

    def _is_other(self, gate: Gate) -> bool:
        return gate.id != self._gate.id and not self._gates.is_silent(gate)

    async def _report(self) -> None:
        if self._limits is not None:
            self._limits.follow(self._follower.version)
        now = time.monotonic()
        current = replace(
            self._gate,
            version=self._follower.version,
            state="draining" if self._draining() else "serving",
        )
        if current != self._gate or now - self._reported_at >= REPORT_SECONDS:
            await self._feed.report(current, self._states())
            self._gate, self._reported_at = current, now
