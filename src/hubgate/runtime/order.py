"""Whose turn it is at a local model. The rules are those of the queue of a remote one (`core.packing.queue`).

- Interactive calls go before bulk ones; but after some turns of theirs a bulk call has one.
- Callers take turns, however many calls each of them has, and so do the calls of one caller.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from hubgate.domain.calls import BULK_TURN_INTERVAL


class CallInfo(NamedTuple):
    """A call that waits, and who asks."""

    call: int
    caller: str = "-"
    bulk: bool = False


class TurnOrder:
    """The calls that wait."""

    def __init__(self) -> None:
        self._calls: dict[int, CallInfo] = {}
        self._interactive, self._bulk = _Ring(), _Ring()
        self._overtaken = 0
        """Turns of interactive calls since the last one of a bulk call, while one waited."""

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, asked: CallInfo) -> None:
        """Let a call wait."""
        self._calls[asked.call] = asked
        self._ring(asked).add(asked)

    def remove(self, call: int) -> None:
        """Take out a call, if it waits."""
        asked = self._calls.pop(call, None)
        if asked is not None:
            self._ring(asked).remove(asked)

    def take_turn(self) -> list[int]:
        """Give a turn to the first call; after it come the others of its class, which may share the turn.

        It goes on waiting, behind all that come until the next turn. Empty if nothing waits.
        """
        if not self._calls:
            return []
        overdue = self._overtaken >= BULK_TURN_INTERVAL - 1
        bulk = bool(self._bulk) and (overdue or not self._interactive)
        self._overtaken = 0 if bulk or not self._bulk else self._overtaken + 1
        return list((self._bulk if bulk else self._interactive).take_turn())

    def _ring(self, asked: CallInfo) -> _Ring:
        return self._bulk if asked.bulk else self._interactive


class _Ring:
    """Callers that take turns."""

    def __init__(self) -> None:
        self._callers: dict[str, dict[int, None]] = {}
        self._served: CallInfo | None = None

    def __bool__(self) -> bool:
        return bool(self._callers)

    def add(self, asked: CallInfo) -> None:
        self._callers.setdefault(asked.caller, {})[asked.call] = None

    def remove(self, asked: CallInfo) -> None:
        calls = self._callers[asked.caller]
        del calls[asked.call]
        if not calls:
            del self._callers[asked.caller]

    def take_turn(self) -> Iterator[int]:
        self._pass_on()
        caller, calls = next(iter(self._callers.items()))
        self._served = CallInfo(next(iter(calls)), caller)
        return chain.from_iterable(self._callers.values())

    def _pass_on(self) -> None:
        """Put whoever had the last turn behind the others; only now, so that those who came meanwhile are before it."""
        if self._served is None:
            return
        call, caller = self._served.call, self._served.caller
        calls = self._callers.pop(caller, None)
        if calls is not None:
            self._callers[caller] = calls
            if call in calls:
                calls[call] = calls.pop(call)
