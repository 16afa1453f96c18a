"""How many bytes of replies may be in memory at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

from hubgate.domain.errors import GatewayBusy

_NOTABLE_BYTES = 32 * 1024 * 1024


class ByteBudget:
    """A number of bytes that callers share.

    A caller gets up to half of it, so that slow calls of one do not keep out all others, but always one call at a time.
    Those who wait take turns by caller, bulk calls after the others.

    Args:
        total: bytes.
        patience: seconds until a call that waits is refused.
    """

    def __init__(self, total: int, patience: float = 45.0) -> None:
        self.total = total
        self.used = 0
        self.on_idle: Callable[[], object] | None = None
        """Called when nothing is in use any more, after much was."""
        self._patience = patience
        self._peak = 0
        self._held: dict[str, int] = {}
        self._lines: tuple[_Lines, _Lines] = ({}, {})
        """Of interactive and of bulk calls: who waits, by caller, in the order of their turns."""

    async def take(self, size: int, caller: str, *, bulk: bool = False) -> None:
        """Reserve bytes, for which the caller may have to wait.

        Raises:
            GatewayBusy: there were too few for too long.
        """
        size = min(size, self.total)
        if not self._lines[0] and not (bulk and self._lines[1]) and self._fits(size, caller):
            self.add(size, caller)
            return
        turn = asyncio.get_running_loop().create_future()
        lines = self._lines[bulk]
        line = lines.setdefault(caller, deque())
        line.append((size, turn))
        self._next()
        try:
            async with asyncio.timeout(self._patience):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.give_back(size, caller)
            elif lines.get(caller) is line:
                with contextlib.suppress(ValueError):
                    line.remove((size, turn))
                if not line:
                    del lines[caller]
                self._next()
            if isinstance(error, TimeoutError):
                raise _exhausted() from None
            raise

    def add(self, size: int, caller: str) -> None:
        """Count bytes that are there already, even if that is too many: others wait longer then."""
        self.used += size
        self._held[caller] = self._held.get(caller, 0) + size
        self._peak = max(self._peak, self.used)

    def give_back(self, size: int, caller: str) -> None:
        """Give back what was taken or added; of more than `total`, only `total` was taken."""
        self.used -= size
        left = self._held[caller] - size
        if left > 0:
            self._held[caller] = left
        else:
            del self._held[caller]
        if self._lines[0] or self._lines[1]:
            self._next()
        if not self.used and self._peak > _NOTABLE_BYTES and self.on_idle is not None:
            self._peak = 0
            self.on_idle()

    def _fits(self, size: int, caller: str) -> bool:
        held = self._held.get(caller, 0)
        return self.used + size <= self.total and (not held or held + size <= self.total // 2)

    def _next(self) -> None:
        """Let those who wait have what is free."""
        for lines in self._lines:
            if self._waits_for_others(lines):
                return

    def _waits_for_others(self, lines: _Lines) -> bool:
        """Let one call of each caller after the other have its bytes.

        Returns whether the next one needs more than is free: smaller ones must not pass it for ever.
        """
        callers = deque(lines)
        while callers:
            caller = callers.popleft()
            line = lines[caller]
            size, turn = line[0]
            if not turn.done():
                if self.used + size > self.total:
                    return True
                if not self._fits(size, caller):
                    continue
                self.add(size, caller)
                turn.set_result(None)
            line.popleft()
            del lines[caller]
            if line:
                lines[caller] = line
                callers.append(caller)
        return False


_Lines = dict[str, deque[tuple[int, "asyncio.Future[None]"]]]


def _exhausted() -> GatewayBusy:
    return GatewayBusy(
        "The memory for replies is exhausted.",
        remedy="Retry in a moment with fewer texts per request, read responses as they arrive, or ask the operator to raise "
        "HUBGATE_MAX_TOTAL_REPLY_BYTES.",
        retry_after=2.0,
    )
