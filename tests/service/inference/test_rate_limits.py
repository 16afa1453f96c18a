"""A rate limit keeps its identity, and so what was sent under it, when its numbers or its token change."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from stub_sources import dedicated
from virtual_time import now, run

from hubgate.core.traffic.rate_limiter import RateLimiter
from hubgate.domain.endpoint import Endpoint, Target
from hubgate.domain.secret import Secret
from hubgate.service.gateway import Gateway
from hubgate.service.inference.pipeline import Pipelines
from hubgate.service.inference.rate_limits import RateLimits

if TYPE_CHECKING:
    from stub_sources import StubSources

    from hubgate.store.store import SqlStore

SLOW = dedicated("slow", requests_per_minute=60, burst=60)
TOKEN = Secret("hf_one")


def served(limits: RateLimits, target: Target, former: Target | None = None) -> Target:
    """The target as it goes into service."""
    target = replace(target, limit=limits.identify(target, former))
    limits.limiter(target)
    limits.use(target)
    return target


async def send(limiter: RateLimiter, requests: int) -> None:
    for _ in range(requests):
        permit = await limiter.acquire()
        assert permit.try_send()
        permit.reply_started()
        limiter.release(permit)


@pytest.mark.parametrize(
    ("changes", "token"),
    [
        ({"requests_per_minute": 59}, TOKEN),
        ({"requests_per_minute": 120}, TOKEN),
        ({"max_concurrent_requests": 5}, TOKEN),
        ({"tokens_per_minute": 1000}, TOKEN),
        ({"burst": 1}, TOKEN),
        ({}, Secret("hf_two")),
        ({}, None),
    ],
    ids=["lower", "higher", "concurrency", "tokens", "burst", "token", "no token"],
)
def test_changed_endpoint_goes_on_with_what_was_sent(changes: dict[str, int], token: Secret | None) -> None:
    async def main() -> int:
        limits = RateLimits(now)
        old = served(limits, Target(SLOW, TOKEN))
        limiter = limits.limiter(old)
        await send(limiter, 60)
        new = served(limits, Target(replace(SLOW, **changes), token), old)  # type: ignore[arg-type]
        assert limits.limiter(new) is limiter
        return limiter.used()

    assert run(main()) == 60


def test_other_server_has_a_limit_of_its_own() -> None:
    async def main() -> None:
        limits = RateLimits(now)
        old = served(limits, Target(SLOW, TOKEN))
        first = limits.limiter(old)
        new = served(limits, Target(replace(SLOW, url="http://127.0.0.1:2/"), TOKEN), old)
        assert limits.limiter(new) is not first

    run(main())


def used(limits: RateLimits, endpoint: Endpoint, token: Secret | None = TOKEN) -> RateLimiter:
    return limits.limiter(served(limits, Target(endpoint, token)))


def test_endpoints_share_a_limit_if_one_is_registered_as_the_other_is_now() -> None:
    async def main() -> None:
        limits = RateLimits(now)
        first = served(limits, Target(SLOW, TOKEN))
        served(limits, Target(replace(SLOW, requests_per_minute=30), TOKEN), first)
        shared = limits.limiter(first)
        assert used(limits, replace(SLOW, name="same", requests_per_minute=30)) is shared
        assert used(limits, replace(SLOW, name="as-before")) is not shared
        assert used(limits, replace(SLOW, name="token", requests_per_minute=30), None) is not shared

    run(main())


def test_smallest_numbers_of_the_endpoints_that_share_a_limit_hold() -> None:
    async def seconds(limiter: RateLimiter, requests: int) -> float:
        await limiter.acquire()
        before = now()
        await send(limiter, requests)
        return now() - before

    async def main() -> list[float]:
        limits = RateLimits(now)
        endpoint = replace(SLOW, requests_per_minute=600, burst=1)
        one = served(limits, Target(endpoint, TOKEN))
        other = served(limits, Target(replace(endpoint, name="other"), TOKEN))
        limiter = limits.limiter(one)
        took = [await seconds(limiter, 3)]
        other = served(limits, Target(replace(other.endpoint, requests_per_minute=60), TOKEN), other)
        one = served(limits, Target(replace(endpoint, requests_per_minute=1200), TOKEN), one)
        took.append(await seconds(limiter, 3))
        served(limits, Target(replace(other.endpoint, enabled=False), TOKEN), other)
        took.append(await seconds(limiter, 3))
        limits.drop("other")
        took.append(await seconds(limiter, 3))
        return took

    assert run(main()) == pytest.approx([0.3, 3, 0.15, 0.15], abs=0.02)


async def test_identity_is_stored_with_the_endpoint(store: SqlStore, sources: StubSources) -> None:
    """So other gateways, and this one after a restart, know the limit of an endpoint whose token was replaced."""
    gateway = Gateway(store, sources, Pipelines(None, time.monotonic))
    await gateway.registry.register(SLOW, TOKEN)
    (first,) = await store.endpoints()
    assert first.limit
    await gateway.registry.edit(replace(gateway.registry.find("slow"), burst=2))
    await gateway.registry.edit(gateway.registry.find("slow"), Secret("hf_another"))
    (edited,) = await store.endpoints()
    assert (edited.limit, edited.token, edited.endpoint.burst) == (first.limit, Secret("hf_another"), 2)
    await gateway.close()
    again = Gateway(store, sources, Pipelines(None, time.monotonic))
    await again.stored.load()
    await again.registry.edit(replace(again.registry.find("slow"), burst=3))
    (edited,) = await store.endpoints()
    assert edited.limit == first.limit
    await again.close()


async def test_replaced_token_of_a_connection_keeps_the_limit(store: SqlStore, sources: StubSources) -> None:
    gateway = Gateway(store, sources, Pipelines(None, time.monotonic))
    await gateway.connections.add("team", TOKEN, ["127.0.0.1"])
    await gateway.registry.register(replace(SLOW, connection="team"), None)
    before = gateway.pipelines()["slow"].queue
    await gateway.connections.replace("team", Secret("hf_another"))
    after = gateway.pipelines()["slow"].queue
    assert before is not None
    assert after is not None
    assert after is not before
    assert after.limiter is before.limiter
    await gateway.close()
