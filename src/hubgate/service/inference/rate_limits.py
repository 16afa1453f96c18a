"""The rate limits of models' servers. A limit has an identity, which stays when its numbers or the token change.

Endpoints share a limit if they are registered with the URL, the token and the numbers of an endpoint that exists. If
the numbers of one of them are changed later, the smallest of each number apply to all.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from weakref import WeakValueDictionary

from hubgate.core.traffic.leases import Lease, SharedLeases
from hubgate.core.traffic.notices import SharedNotices
from hubgate.core.traffic.permits import LimitNumbers
from hubgate.core.traffic.rate_limiter import RateLimiter
from hubgate.core.traffic.slots import SharedLimits
from hubgate.domain.endpoint import Endpoint, Facts, Source, Target
from hubgate.domain.ports import Clock
from hubgate.domain.secret import Secret
from hubgate.service.inference.ledger import Ledger
from hubgate.upstreams.engines.specs import spec_of
from hubgate.upstreams.urls import base_url

REMOTE = frozenset({Source.DEDICATED, Source.ROUTER})
_Server = tuple[Source, str | None]
_Key = tuple[Source, str | None, str]


@dataclass(frozen=True, slots=True)
class _User:
    """An endpoint at one server."""

    identity: str
    token: Secret | None
    numbers: LimitNumbers
    enabled: bool


class RateLimits:
    """Opens rate limiters, and follows the endpoints that use them.

    Args:
        clock: seconds that never go back.
        ledger: where permits are written down.
        shared: the limits that gateways share.
        notices: by which gateways know of a pause.
        leases: of what is in flight from all gateways.
    """

    def __init__(
        self,
        clock: Clock,
        ledger: Ledger | None = None,
        shared: SharedLimits | None = None,
        notices: SharedNotices | None = None,
        leases: SharedLeases | None = None,
    ) -> None:
        self._clock = clock
        self._ledger = ledger
        self._shared = shared
        self._notices = notices
        self._leases = leases
        self._limiters: WeakValueDictionary[_Key, RateLimiter] = WeakValueDictionary()
        self._users: dict[_Server, dict[str, _User]] = {}
        self._servers: dict[str, set[_Server]] = {}
        """Of each endpoint in service."""

    def limiter(self, target: Target) -> RateLimiter:
        """The limiter of an endpoint with one server. One that exists keeps its numbers until `use`."""
        key = (*server_of(target.endpoint), limit_of(target))
        limiter = self._limiters.get(key)
        if limiter is None:
            limiter = self._limiters[key] = self._open(key, _numbers(target.endpoint))
        return limiter

    def use(self, target: Target) -> None:
        """Apply the numbers of an endpoint that goes into service, in place of those that it had."""
        name, endpoint = target.endpoint.name, target.endpoint
        former = self._servers.pop(name, set())
        users = {
            server_of(each): _User(limit_of(target), target.token, _numbers(each), endpoint.enabled)
            for each in endpoint.replicas
        }
        for server in former - users.keys():
            self._forget(server, name)
        for server, user in users.items():
            self._users.setdefault(server, {})[name] = user
        self._servers[name] = set(users)
        for server in former | users.keys():
            self._apply(server)

    def drop(self, name: str) -> None:
        """Leave a limit to the other endpoints that share it."""
        for server in self._servers.pop(name, ()):
            self._forget(server, name)
            self._apply(server)

    def identify(self, target: Target, former: Target | None) -> str:
        """The identity of the limit of an endpoint that is registered, or changed from a former one."""
        servers = {server_of(each) for each in target.endpoint.replicas}
        if former is not None and servers & {server_of(each) for each in former.endpoint.replicas}:
            return limit_of(former)
        numbers, taken = _numbers(target.endpoint), set()
        for server in servers:
            for name, user in self._users.get(server, {}).items():
                if name == target.endpoint.name:
                    continue
                if (user.token, user.numbers) == (target.token, numbers):
                    return user.identity
                taken.add(user.identity)
        identity = limit_of(target)
        while identity in taken:
            identity = _digest(identity)
        return identity

    def _forget(self, server: _Server, name: str) -> None:
        users = self._users[server]
        del users[name]
        if not users:
            del self._users[server]

    def _apply(self, server: _Server) -> None:
        users = [user for user in self._users.get(server, {}).values() if user.enabled]
        for identity in {user.identity for user in users}:
            key = (*server, identity)
            limiter = self._limiters.get(key)
            if limiter is None:
                continue
            numbers = _smallest([user.numbers for user in users if user.identity == identity])
            limiter.set_numbers(
                numbers,
                request_lease=self._lease(
                    limiter.request_lease, "requests", key, numbers.max_concurrent_requests
                ),
                text_lease=self._lease(limiter.text_lease, "texts", key, numbers.max_concurrent_texts),
            )

    def _open(self, key: _Key, numbers: LimitNumbers) -> RateLimiter:
        digest, slots, reservation = _digest(key, 8), None, None
        per_minute = numbers.requests_per_minute
        if per_minute is not None and self._shared is not None:
            slots = self._shared.slots(digest, per_minute, numbers.burst)
        elif per_minute is not None and self._ledger is not None:
            reservation = self._ledger.reservation(_digest(key), per_minute)
        return RateLimiter(
            per_minute if slots is None else None,
            tokens_per_minute=numbers.tokens_per_minute,
            gateways=self._known_gateways if key[0] in REMOTE else lambda: 1,
            max_concurrent_requests=numbers.max_concurrent_requests,
            max_concurrent_texts=numbers.max_concurrent_texts,
            burst=numbers.burst,
            reservation=reservation,
            slots=slots,
            request_lease=self._lease(None, "requests", key, numbers.max_concurrent_requests),
            text_lease=self._lease(None, "texts", key, numbers.max_concurrent_texts),
            pauses=self._notices.notice(f"pause {digest}") if self._notices else None,
            clock=self._clock,
        )

    def _known_gateways(self) -> int:
        return self._shared.contact.gateways if self._shared else 1

    def _lease(self, former: Lease | None, of: str, key: _Key, limit: int | None) -> Lease | None:
        if self._leases is None or limit is None or key[0] not in REMOTE:
            return None
        if former is None:
            return self._leases.lease(f"{_digest(key, 8)} {of}", limit)
        former.set_total(limit)
        return former


def server_of(endpoint: Endpoint) -> tuple[Source, str | None]:
    """Where an endpoint with one server leads."""
    return endpoint.source, base_url(endpoint.url).lower() if endpoint.url else endpoint.model


def limit_of(target: Target) -> str:
    """The identity of an endpoint's limit at each of its servers."""
    # Four bytes distinguish the limits of a server, and are too few to guess a token from.
    return target.limit or _digest(
        (target.token.reveal() if target.token else "", _rate_numbers(target.endpoint))
    )


def _rate_numbers(endpoint: Endpoint) -> tuple[int | None, ...]:
    return (
        endpoint.requests_per_minute if endpoint.is_rate_limited else None,
        endpoint.tokens_per_minute,
        endpoint.max_concurrent_requests,
        endpoint.burst,
    )


def _numbers(endpoint: Endpoint) -> LimitNumbers:
    per_minute, tokens, requests, burst = _rate_numbers(endpoint)
    return LimitNumbers(
        requests_per_minute=per_minute,
        tokens_per_minute=tokens,
        max_concurrent_requests=requests,
        max_concurrent_texts=_max_concurrent_texts(endpoint.facts),
        burst=burst or 1,
    )


def _smallest(several: list[LimitNumbers]) -> LimitNumbers:
    def least(name: str) -> int | None:
        return min((value for each in several if (value := getattr(each, name)) is not None), default=None)

    return LimitNumbers(**{name: least(name) for name in LimitNumbers.__struct_fields__})  # type: ignore[arg-type]


def _max_concurrent_texts(facts: Facts) -> int | None:
    """The limit of a server that counts texts: what it reports, or its engine's default."""
    default = spec_of(facts.engine).max_concurrent_texts
    return default and (facts.max_concurrent_requests or default)


def _digest(value: object, size: int = 4) -> str:
    return hashlib.blake2b(repr(value).encode(), digest_size=size).hexdigest()
