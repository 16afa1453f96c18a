"""What a gateway key may ask in a minute. Kept in memory: after a restart every key has its whole minute."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from hubgate.domain.errors import KeyLimit
from hubgate.domain.records import Key

MINUTE = 60.0
_SLICE = 0.05
"""Seconds whose tokens are counted together, so that a minute has a bounded number of entries."""


@dataclass(slots=True)
class _Minute:
    """What one key did in the last minute: when it asked, and how many tokens it was answered, and when."""

    requests: deque[float] = field(default_factory=deque)
    tokens: deque[tuple[float, int]] = field(default_factory=deque)
    spent: int = 0


class KeyLimits:
    """No sixty seconds hold more requests of a key than it may make.

    Tokens are known only when a call was answered: a key that has spent its tokens is refused until enough of them are
    a minute old, and what is in flight by then is answered. Times are seconds on one clock that never goes back.
    """

    def __init__(self) -> None:
        self._minutes: dict[str, _Minute] = {}

    def admit(self, key: Key, now: float) -> None:
        """Count a request.

        Raises:
            KeyLimit: the key has no more for now; says for how long.
        """
        requests, tokens = key.requests_per_minute, key.tokens_per_minute
        if requests is None and tokens is None:
            return
        minute = self._minutes.setdefault(key.id, _Minute())
        if tokens is not None and (wait := _wait_for_tokens(minute, tokens, now)) > 0:
            raise _spent(key, f"{tokens} tokens", wait)
        if requests is not None:
            asked = minute.requests
            while asked and now - asked[0] >= MINUTE:
                asked.popleft()
            if len(asked) >= requests:
                raise _spent(key, f"{requests} requests", asked[-requests] + MINUTE - now)
            asked.append(now)

    def spend(self, key: Key, tokens: int, now: float) -> None:
        """Count the tokens of an answered call."""
        if key.tokens_per_minute is None or not tokens:
            return
        minute = self._minutes.setdefault(key.id, _Minute())
        minute.spent += tokens
        if minute.tokens and now - minute.tokens[-1][0] < _SLICE:
            at, before = minute.tokens.pop()
            minute.tokens.append((at, before + tokens))
        else:
            minute.tokens.append((now, tokens))

    def forget(self, key_id: str) -> None:
        """A key is no more."""
        self._minutes.pop(key_id, None)


def _wait_for_tokens(minute: _Minute, limit: int, now: float) -> float:
    """Seconds until fewer tokens than the limit were spent in the minute before; none or less if that is so now."""
    spent = minute.tokens
    while spent and now - spent[0][0] >= MINUTE + _SLICE:
        minute.spent -= spent.popleft()[1]
    left, over = iter(spent), minute.spent - limit
    wait = 0.0
    while over >= 0:
        at, tokens = next(left)
        over -= tokens
        wait = at + MINUTE + _SLICE - now
    return wait


def _spent(key: Key, what: str, wait: float) -> KeyLimit:
    return KeyLimit(
        f"The key [{key.name}] may have {what} a minute, and has had them.",
        remedy="Ask again later, or let an admin raise the key's limit.",
        retry_after=wait,
    )
