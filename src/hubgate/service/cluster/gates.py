"""The gateways of a shared database: who runs, and who follows which change."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

from hubgate.core.off_loop import outlasting
from hubgate.domain.errors import InUse, StoreFailed
from hubgate.domain.records import Gate, ReportedStates
from hubgate.store.cluster.feed import SqlFeed

SILENT_SECONDS = 3.0
WAIT_SECONDS = 1.0
"""How long a change waits until all gateways follow it."""
_FORGOTTEN_SECONDS = 60.0
"""Until then, a gateway that has stopped without saying goodbye may only be held up."""
ROTATION = (
    "To rotate keys: put the new one behind the old one at every gateway and restart them, then in front of it and "
    "restart them, then run `hubgate key rotate-secret`. `hubgate gates` shows who has which."
)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.05

_log = logging.getLogger(__name__)


class Gates:
    """What all gateways have reported."""

    def __init__(self, feed: SqlFeed) -> None:
        self._feed = feed
        self.wake: Callable[[], None] = lambda: None
        """Called when a change was made here."""
        self.own_id = ""
        """Of this gateway; empty for a command, which is none."""
        self._reading: asyncio.Task[Sequence[Gate]] | None = None

    async def all(self) -> Sequence[Gate]:
        """Raises: StoreFailed: the database cannot be used."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
        return await outlasting(self._reading)

    async def states(self) -> Sequence[ReportedStates]:
        """What the gateways that run report of their endpoints. Raises: StoreFailed: the database cannot be used."""
        return await self._feed.states(SILENT_SECONDS)

    async def newest(self) -> int:
        """The version of the newest change. Raises: StoreFailed: the database cannot be used."""
        return await self._feed.version()

    def is_silent(self, gate: Gate) -> bool:
        """Whether changes no longer wait for a gateway, because it was not heard of for too long."""
        return gate.silent >= SILENT_SECONDS

    async def check_keys(self, name: str) -> None:
        """Check that this process and the gateways that run can read the tokens that any of them stores from now on.

        Args:
            name: of this gateway, which may have run with other keys a moment ago.

        Raises:
            StoreFailed: they cannot, or the database cannot be used.
        """
        own = self._feed.key_ids
        for gate in await self.all():
            if gate.name == name or self.is_silent(gate):
                continue
            if own[0] not in gate.keys or gate.keys[0] not in own:
                raise StoreFailed(
                    f"This process and the gateway {gate.name} of the same database have different secret keys, so they "
                    f"could not read each other's tokens: their ids are {', '.join(own)} and {', '.join(gate.keys)}, "
                    "newest first.",
                    remedy=f"Give every gateway the same keys. {ROTATION}",
                )

    async def check_rotation(self) -> None:
        """Check that every gateway that was heard of in the last minute has the newest key of this process.

        Raises:
            InUse: some do not.
            StoreFailed: the database cannot be used.
        """
        newest = self._feed.key_ids[0]
        heard = [gate for gate in await self.all() if gate.silent < _FORGOTTEN_SECONDS]
        lacking = [gate.name for gate in heard if newest not in gate.keys]
        if lacking:
            raise InUse(
                f"These gateways do not have the newest secret key, {newest}, and could not read the tokens: "
                f"{', '.join(lacking)}.",
                remedy=f"{ROTATION} A gateway that was killed is forgotten after a minute.",
            )

    async def behind(self, version: int) -> Sequence[str]:
        """Wait until all gateways that run follow a change.

        Returns the names of those that do not after a second, and of those that have fallen silent: nobody waits for
        them, but they may only be held up, and answer calls again before they follow.
        """
        self.wake()
        names: Sequence[str] = ["unknown"]
        silent: Sequence[str] = []
        pause = _FIRST_PAUSE
        with contextlib.suppress(TimeoutError, StoreFailed):
            async with asyncio.timeout(WAIT_SECONDS):
                while names:
                    gates = await self.all()
                    names = [
                        gate.name for gate in gates if not self.is_silent(gate) and gate.version < version
                    ]
                    silent = self._lately_silent(gates, version)
                    if names:
                        await asyncio.sleep(pause)
                        pause = min(2 * pause, _LONGEST_PAUSE)
        names = [*names, *silent]
        if names:
            _log.warning("change %d is answered, but not yet followed by %s", version, ", ".join(names))
        return names

    def _lately_silent(self, gates: Sequence[Gate], version: int) -> Sequence[str]:
        """The gateways that may be held up. One whose name is heard again was killed, and runs again."""
        heard = {gate.name for gate in gates if not self.is_silent(gate)}
        return [
            gate.name
            for gate in gates
            if SILENT_SECONDS <= gate.silent < _FORGOTTEN_SECONDS
            and gate.version < version
            and gate.name not in heard
        ]

    async def _read(self) -> Sequence[Gate]:
        return await self._feed.gates()
