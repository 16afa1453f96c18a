"""The order of calls at a local model. The rules are those of a remote endpoint (`core.queue.fair_queue`).

- Interactive calls go before bulk ones, but after a few turns a bulk call gets one.
- Callers take turns, however many calls each of them has, and so do the calls of one caller.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from hubgate.domain.calls import BULK_TURN_INTERVAL


class CallInfo(NamedTuple):
    """A waiting call and its caller."""

    call: int
    caller: str = "-"
    bulk: bool = False


class TurnOrder:
    """The waiting calls."""

    def __init__(self) -> None:
        self._calls: dict[int, CallInfo] = {}
        self._interactive, self._bulk = _Ring(), _Ring()
        self._turns_without_bulk = 0
        """Interactive turns since the last bulk turn, while a bulk call waited."""

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, info: CallInfo) -> None:
        self._calls[info.call] = info
        self._ring(info).add(info)

    def remove(self, call: int) -> None:
        """Remove a call if it is waiting."""
        info = self._calls.pop(call, None)
        if info is not None:
            self._ring(info).remove(info)

    def take_turn(self) -> list[int]:
        """The call whose turn it is, then the others of its class, which may share the turn.

        The first call keeps waiting, behind all that are added until the next turn. Empty if nothing waits.
        """
        if not self._calls:
            return []
        overdue = self._turns_without_bulk >= BULK_TURN_INTERVAL - 1
        bulk = bool(self._bulk) and (overdue or not self._interactive)
        self._turns_without_bulk = 0 if bulk or not self._bulk else self._turns_without_bulk + 1
        return list((self._bulk if bulk else self._interactive).take_turn())

    def _ring(self, info: CallInfo) -> _Ring:
        return self._bulk if info.bulk else self._interactive


class _Ring:
    """Callers that take turns."""

    def __init__(self) -> None:
        self._callers: dict[str, dict[int, None]] = {}
        self._served: CallInfo | None = None

    def __bool__(self) -> bool:
        return bool(self._callers)

    def add(self, info: CallInfo) -> None:
        self._callers.setdefault(info.caller, {})[info.call] = None

    def remove(self, info: CallInfo) -> None:
        calls = self._callers[info.caller]
        del calls[info.call]
        if not calls:
            del self._callers[info.caller]

    def take_turn(self) -> Iterator[int]:
        self._rotate()
        caller, calls = next(iter(self._callers.items()))
        self._served = CallInfo(next(iter(calls)), caller)
        return chain.from_iterable(self._callers.values())

    def _rotate(self) -> None:
        """Move the last turn's caller and call to the end. Only now, so that calls that were added since are before it."""
        if self._served is None:
            return
        call, caller = self._served.call, self._served.caller
        calls = self._callers.pop(caller, None)
        if calls is not None:
            self._callers[caller] = calls
            if call in calls:
                calls[call] = calls.pop(call)
