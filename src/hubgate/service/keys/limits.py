"""Rate limits of gateway keys, and of requests with a wrong key. Kept in memory, so a restart resets them."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from hubgate.domain.errors import KeyLimit
from hubgate.domain.records import Key
from hubgate.service.shared_values import SharedValues

MINUTE = 60.0
MAX_WRONG_KEYS = 20
"""Wrong keys per minute from one address, and for one key id."""
_SLICE = 0.05
"""Tokens within this many seconds are counted together, which bounds the number of entries."""
_MAX_COUNTERS = 10_000
"""Addresses and key ids whose wrong keys are counted; beyond that, the oldest are forgotten."""
_MAX_SOURCE_LENGTH = 100
_IPV6_PREFIX = 64
"""Bits. A client usually controls all addresses of such a network."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Minute:
    """A key's requests and tokens in the last minute, with their times."""

    requests: deque[float] = field(default_factory=deque)
    tokens: deque[tuple[float, int]] = field(default_factory=deque)
    total_tokens: int = 0


class KeyLimits:
    """Limits the requests and tokens of each key in any 60 seconds.

    The tokens of a call are known only when it has finished. A key over its token limit is refused until enough of them
    are a minute old; its calls in flight are not affected. Times are seconds on one monotonic clock.
    """

    def __init__(self) -> None:
        self._minutes: dict[str, _Minute] = {}

    def admit(self, key: Key, now: float, *, gateways: int = 1) -> None:
        """Count a request.

        Args:
            key: whose limits apply.
            now: the time.
            gateways: how many gateways the limits are divided among.

        Raises:
            KeyLimit: the key is over a limit; has the seconds until the next request is allowed.
        """
        max_requests, max_tokens = (
            _share(key.requests_per_minute, gateways),
            _share(key.tokens_per_minute, gateways),
        )
        if max_requests is None and max_tokens is None:
            return
        minute = self._minutes.setdefault(key.id, _Minute())
        if max_tokens is not None and (wait := _wait_for_tokens(minute, max_tokens, now)) > 0:
            raise limit_error(key, "tokens", wait)
        if max_requests is not None:
            requests = minute.requests
            while requests and now - requests[0] >= MINUTE:
                requests.popleft()
            if len(requests) >= max_requests:
                raise limit_error(key, "requests", requests[-max_requests] + MINUTE - now)
            requests.append(now)

    def note(self, key: Key, now: float) -> None:
        """Count a request that was allowed elsewhere."""
        if key.requests_per_minute is None:
            return
        requests = self._minutes.setdefault(key.id, _Minute()).requests
        while requests and now - requests[0] >= MINUTE:
            requests.popleft()
        requests.append(now)

    def spend(self, key: Key, tokens: int, now: float) -> None:
        """Count the tokens of a finished call."""
        if key.tokens_per_minute is None or not tokens:
            return
        minute = self._minutes.setdefault(key.id, _Minute())
        minute.total_tokens += tokens
        if minute.tokens and now - minute.tokens[-1][0] < _SLICE:
            at, before = minute.tokens.pop()
            minute.tokens.append((at, before + tokens))
        else:
            minute.tokens.append((now, tokens))

    def forget(self, key_id: str) -> None:
        self._minutes.pop(key_id, None)


class WrongKeys:
    """Counts wrong keys per minute, by the client's address and by the key id in the wrong key.

    Valid keys are never counted, so nobody can lock out a valid key.

    Args:
        clock: seconds.
        shared: where they are also counted for all gateways together.
    """

    def __init__(self, clock: Callable[[], float], shared: SharedValues) -> None:
        self._clock = clock
        self._shared = shared
        self._minutes: dict[str, tuple[float, int]] = {}
        """When each minute started, and its count; the oldest minute first."""

    async def count(self, address: str, key_id: str) -> float:
        """Count a wrong key; `key_id` is empty if it contains none. Returns the seconds to wait; 0 below the limit."""
        sources = _sources(address, key_id)
        if wait := max([self._count(source) for source in sources]):
            return wait
        return max([await self._count_everywhere(source) for source in sources])

    def is_exceeded(self, address: str, key_id: str) -> bool:
        """Whether the next wrong key would exceed the limit of this gateway."""
        now = self._clock()
        minutes = [self._minutes.get(source, (now, 0)) for source in _sources(address, key_id)]
        return any(count >= MAX_WRONG_KEYS and 0 <= now - began < MINUTE for began, count in minutes)

    async def _count_everywhere(self, source: str) -> float:
        count, left = await self._shared.count(f"wrong keys {source[:_MAX_SOURCE_LENGTH]}", MINUTE)
        return left if count > MAX_WRONG_KEYS else 0.0

    def _count(self, source: str) -> float:
        now = self._clock()
        began, count = self._minutes.get(source, (now, 0))
        if not 0 <= now - began < MINUTE:
            began, count = now, 0
        if not count:
            self._minutes.pop(source, None)
            if len(self._minutes) >= _MAX_COUNTERS:
                del self._minutes[next(iter(self._minutes))]
        count += 1
        self._minutes[source] = began, count
        if count <= MAX_WRONG_KEYS:
            return 0.0
        if count == MAX_WRONG_KEYS + 1:
            _log.warning("more than %d wrong keys in a minute %s", MAX_WRONG_KEYS, source)
        return began + MINUTE - now


def _wait_for_tokens(minute: _Minute, limit: int, now: float) -> float:
    """Seconds until the tokens of the last minute are below the limit; zero or less if they are now."""
    spent = minute.tokens
    while spent and now - spent[0][0] >= MINUTE + _SLICE:
        minute.total_tokens -= spent.popleft()[1]
    oldest, excess = iter(spent), minute.total_tokens - limit
    wait = 0.0
    while excess >= 0:
        at, tokens = next(oldest)
        excess -= tokens
        wait = at + MINUTE + _SLICE - now
    return wait


def _share(limit: int | None, gateways: int) -> int | None:
    return None if limit is None else max(1, limit // gateways)


def limit_error(key: Key, what: str, wait: float) -> KeyLimit:
    """`what` is `requests` or `tokens`; `wait` the seconds until a request is allowed."""
    limit = key.requests_per_minute if what == "requests" else key.tokens_per_minute
    return KeyLimit(
        f"The key [{key.name}] exceeded its limit of {limit} {what} per minute.",
        remedy="Retry later, or ask an admin to raise the key's limit.",
        retry_after=wait,
    )


def _sources(address: str, key_id: str) -> list[str]:
    return [f"from {_network(address)}", *([f"for key id {key_id}"] if key_id else [])]


def _network(address: str) -> str:
    """An IPv4 address itself, or the network of an IPv6 address."""
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    if ip.version == 4:
        return address
    return str(ip.ipv4_mapped or ip_network((ip.packed, _IPV6_PREFIX), strict=False))
