"""What hubgate stores besides endpoints: keys, connections (named tokens), aliases, usage, audit log, change feed, gateways.

Times are seconds since the epoch.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from hubgate.domain.endpoint import InputType
from hubgate.domain.secret import Secret
from hubgate.domain.token_hosts import DEFAULT_HOSTS, HUGGING_FACE

HOUR, DAY = 3600, 86_400
"""Seconds. Hours and days are in UTC."""
LATENCY_BOUNDS = tuple(float(f"{10 ** (step / 10 - 3):.4g}") for step in range(61))
"""Upper bounds of the histogram buckets in seconds: ten per decade, from 1 ms to 1000 s. One more bucket has the rest."""
BUCKETS = len(LATENCY_BOUNDS) + 1

ACTOR: ContextVar[str] = ContextVar("actor", default="gate")
"""Who is making a change, for the audit log: a gateway key's id, `cli`, `console`, or `gate` for hubgate itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A gateway key as stored. Without `endpoints` it may call all of them."""

    id: str
    name: str
    digest: bytes = field(repr=False)
    """SHA-256 of the key, which is never stored."""
    created_at: float
    last_used_at: float | None = None
    admin: bool = False
    default_endpoint: str | None = None
    bulk: bool = False
    """Its calls wait behind those of interactive keys."""
    input_type: InputType | None = None
    """The default for calls that do not specify it."""
    endpoints: tuple[str, ...] = ()
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    expires_at: float | None = None

    @property
    def is_limited(self) -> bool:
        return self.requests_per_minute is not None or self.tokens_per_minute is not None

    def may_call(self, endpoint: str) -> bool:
        return not self.endpoints or endpoint in self.endpoints


class Exhausted(NamedTuple):
    """A limit of a key."""

    what: str
    """`requests` or `tokens`."""
    seconds: float
    """Until a request is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A stored token, for endpoints without a token of their own."""

    name: str
    token: Secret | None
    """`None` if it could not be decrypted; the log has the reason."""
    created_at: float
    hosts: tuple[str, ...] = DEFAULT_HOSTS
    """Where the token may be sent: see `hubgate.domain.token_hosts`."""

    @property
    def hub_token(self) -> Secret | None:
        """The token for calls to the Hub, if it may be sent there."""
        if self.token is None or HUGGING_FACE not in self.hosts:
            return None
        return next(iter(self.token.each()), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """A name that applications use for an endpoint, and that can be moved to another one."""

    name: str
    endpoint: str
    moved_at: float


class Slot(NamedTuple):
    """What a usage tally counts: an endpoint and a key, in the hour or day that starts `at`."""

    at: int
    endpoint: str
    key: str
    """A gateway key's id; empty for counts that are not per key: cache hits and upstream requests."""


@dataclass(slots=True)
class Latency:
    """A histogram of request durations in seconds, with the exact extremes."""

    counts: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    fastest: float | None = None
    slowest: float | None = None

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(LATENCY_BOUNDS, seconds)] += 1
        if self.fastest is None or self.slowest is None or not self.fastest <= seconds <= self.slowest:
            self._widen(seconds, seconds)

    def add(self, other: Latency) -> None:
        self.counts = [one + two for one, two in zip(self.counts, other.counts, strict=True)]
        if other.fastest is not None and other.slowest is not None:
            self._widen(other.fastest, other.slowest)

    def percentile(self, share: float) -> float | None:
        """The percentile for a share from 0 to 1, accurate to about 10 %; `None` without requests.

        Interpolated within a bucket, and never outside the observed range.
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
    """An endpoint's usage in a period."""

    requests: int = 0
    errors: int = 0
    """Failed requests, without cancelled ones."""
    cancelled: int = 0
    """Requests whose caller disconnected before the response was complete."""
    texts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    queue_seconds: float = 0.0
    cache_hits: int = 0
    cache_misses: int = 0
    upstream_requests: int = 0
    saved_requests: int = 0
    """Calls that shared another call's upstream request."""
    latency: Latency = field(default_factory=Latency)
    """Successful interactive requests."""
    bulk_latency: Latency = field(default_factory=Latency)
    """Successful bulk requests, which wait behind interactive ones."""
    causes: dict[str, int] = field(default_factory=dict)
    """Errors by cause."""

    def add(self, other: Tally) -> None:
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
"""The plain counters of a `Tally`."""


CANCELLED = "client_left"
"""The cause of a request whose caller disconnected before the response was complete. It does not count as an error."""


class UsageRow(NamedTuple):
    """The usage of one group; `group` has a value for each field of `UsageQuery.by`."""

    group: tuple[str | int, ...]
    tally: Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageQuery:
    """Which usage to return, from `start` (inclusive) to `end` (exclusive), and how to group it."""

    start: int
    end: int
    by: tuple[str, ...] = ()
    """Any of endpoint, key, day, hour, cause."""
    endpoint: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """An entry of the audit log."""

    at: float
    who: str
    """See `ACTOR`."""
    verb: str
    """For example `endpoint.add`."""
    subject: str
    """The name of the changed object."""
    changes: Mapping[str, Any]
    """`[before, after]` by setting; never a secret."""


class Kind(StrEnum):
    """What a line of the change feed is about. All versions of hubgate must agree on the values."""

    ENDPOINT = "endpoint"
    CONNECTION = "connection"
    KEY = "key"
    ALIAS = "alias"
    CACHE = "cache"
    """The vector cache was cleared."""


class FeedLine(NamedTuple):
    kind: str
    """A `Kind`, or one of a newer version."""
    name: str
    """The endpoint's or the connection's; empty for other kinds."""


class News(NamedTuple):
    """What was changed up to a version of the feed."""

    version: int
    lines: Sequence[FeedLine] | None
    """In order; `None` if they are not known, so that anything may have changed."""


@dataclass(slots=True)
class ChangesMade:
    """The newest change that a request has made."""

    version: int = 0


MADE: ContextVar[ChangesMade | None] = ContextVar("changes made", default=None)
"""Set for requests whose changes are awaited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A gateway of a shared database."""

    id: str
    """Random, of this run."""
    name: str
    version: int = 0
    """The newest change that it follows."""
    state: str = "serving"
    """Or `draining`."""
    software: str = ""
    """The version of hubgate."""
    revision: str = ""
    """The version of the tables that it knows."""
    keys: tuple[str, ...] = ()
    """The ids of the secret keys that it has, newest first."""
    started_at: float = 0.0
    silent: float = 0.0
    """Seconds since it was last heard of."""


class ReportedStates(NamedTuple):
    """What a gateway reports of its endpoints."""

    gate_id: str
    gate_name: str
    endpoints: str
    """JSON: see `hubgate.service.states`. Empty before its first report."""
