"""What the gate keeps beside endpoints and keys: named tokens, counts of use, and who changed what."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from hubgate.domain.secret import Secret
from hubgate.domain.token_hosts import DEFAULT_HOSTS, HUGGING_FACE

HOUR, DAY = 3600, 86_400
"""Seconds. Hours and days are UTC's."""
LATENCY_BOUNDS = tuple(float(f"{10 ** (step / 10 - 3):.4g}") for step in range(61))
"""Upper bounds of the buckets, in seconds: ten per decade, from 1 ms to 1000 s. One more bucket holds what took longer."""
BUCKETS = len(LATENCY_BOUNDS) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A stored token under a name, for endpoints that have none of their own. Time is seconds since the epoch."""

    name: str
    token: Secret | None
    """`None` where it cannot be opened: the log says why."""
    created_at: float
    hosts: tuple[str, ...] = DEFAULT_HOSTS
    """Where its token may be sent: see `hubgate.domain.token_hosts`. Empty where an earlier version stored it."""

    @property
    def hub_token(self) -> Secret | None:
        """The token for questions to the Hub, if it may be sent there."""
        if self.token is None or HUGGING_FACE not in self.hosts:
            return None
        return next(iter(self.token.each()), None)


class Slot(NamedTuple):
    """Whose use is counted, and when: the hour's or the day's start in seconds since the epoch."""

    at: int
    endpoint: str
    key: str
    """A gateway key's id; empty for what cannot be told by keys: caches and requests to the upstream."""


@dataclass(slots=True)
class Latency:
    """How long some requests took, in seconds: a histogram, and the exact extremes (`None` without requests)."""

    counts: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    fastest: float | None = None
    slowest: float | None = None

    def observe(self, seconds: float) -> None:
        """Count one request."""
        self.counts[bisect_left(LATENCY_BOUNDS, seconds)] += 1
        self._widen(seconds, seconds)

    def add(self, other: Latency) -> None:
        """Count the requests of another one, too."""
        self.counts = [one + two for one, two in zip(self.counts, other.counts, strict=True)]
        if other.fastest is not None and other.slowest is not None:
            self._widen(other.fastest, other.slowest)

    def percentile(self, share: float) -> float | None:
        """The time within which this share of the requests was answered; `None` without requests.

        Interpolated within a bucket, so it is accurate to a tenth or so, and never outside of what was observed.
        """
        if self.fastest is None or self.slowest is None:
            return None
        left, below, seconds = share * sum(self.counts), 0.0, self.slowest
        for bound, count in zip(LATENCY_BOUNDS, self.counts, strict=False):
            if count and left <= count:
                seconds = below + (bound - below) * left / count
                break
            left, below = left - count, bound
        return min(max(seconds, self.fastest), self.slowest)

    def _widen(self, fastest: float, slowest: float) -> None:
        if self.fastest is None or fastest < self.fastest:
            self.fastest = fastest
        if self.slowest is None or slowest > self.slowest:
            self.slowest = slowest


@dataclass(slots=True)
class Tally:
    """How much an endpoint was used in some time. Queue time is in seconds."""

    requests: int = 0
    errors: int = 0
    """Requests that failed, other than those that were cancelled."""
    cancelled: int = 0
    """Requests whose caller disconnected before the answer was complete."""
    texts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    queue_seconds: float = 0.0
    cache_hits: int = 0
    cache_misses: int = 0
    upstream_requests: int = 0
    saved_requests: int = 0
    """Calls that went along in another's request to the upstream."""
    latency: Latency = field(default_factory=Latency)
    """Of answered interactive requests."""
    bulk_latency: Latency = field(default_factory=Latency)
    """Of answered bulk requests, which wait behind the interactive ones."""
    causes: dict[str, int] = field(default_factory=dict)
    """Errors by their cause."""

    def add(self, other: Tally) -> None:
        """Add what another one counted."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.latency.add(other.latency)
        self.bulk_latency.add(other.bulk_latency)
        for cause, requests in other.causes.items():
            self.causes[cause] = self.causes.get(cause, 0) + requests


COUNTS = (
    "requests",
    "errors",
    "cancelled",
    "texts",
    "prompt_tokens",
    "completion_tokens",
    "queue_seconds",
    "cache_hits",
    "cache_misses",
    "upstream_requests",
    "saved_requests",
)
"""The numbers of a `Tally` that are simply added."""


class UsageRow(NamedTuple):
    """The use of one group, as `UsageStore.read` was asked to group: `group` holds a value for each word of `by`."""

    group: tuple[str | int, ...]
    tally: Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageQuery:
    """Which use, and by what: `start` included, `end` excluded, in seconds since the epoch."""

    start: int
    end: int
    by: tuple[str, ...] = ()
    """Of endpoint, key, day, hour, cause."""
    endpoint: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One line of the audit log."""

    at: float
    who: str
    verb: str
    """Kind and verb, as `endpoint.add`."""
    subject: str
    """The name of what was changed."""
    changes: Mapping[str, Any]
    """`[before, after]` by the setting's name; never a secret."""


class ConnectionStore(Protocol):
    """Connections that survive a restart; tokens go in and come out open. All raise `StoreFailed`."""

    async def all(self) -> Sequence[Connection]:
        """All of them, by name."""
        ...

    async def put(self, connection: Connection) -> None:
        """Store a connection, in place of the one of its name; without a token the stored one stays."""
        ...

    async def remove(self, name: str) -> None:
        """Forget a connection."""
        ...


class UsageStore(Protocol):
    """Counts that survive a restart. All raise `StoreFailed`; nothing is half done then."""

    async def add(self, tallies: Mapping[Slot, Tally]) -> None:
        """Add to the hours."""
        ...

    async def read(
        self, question: UsageQuery, most: int, after: tuple[str | int, ...] | None = None
    ) -> Sequence[UsageRow]:
        """The use, grouped and in the order of the groups; at most so many rows, those after a group if one is given."""
        ...

    async def roll(self, now: float) -> None:
        """Make days of old hours, and forget old days."""
        ...


class AuditLog(Protocol):
    """Who changed what. All raise `StoreFailed`."""

    async def record(self, verb: str, subject: str, changes: Mapping[str, Any] | None = None) -> None:
        """Write down a change that the store does not see: what it stores it writes down itself."""
        ...

    async def read(self, most: int, before: int | None = None) -> Sequence[tuple[int, Change]]:
        """The newest changes with their numbers, the newest first; only those before a number, if one is given."""
        ...
