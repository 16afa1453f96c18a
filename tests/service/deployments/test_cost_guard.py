"""The cost guard against the look-alike of the management API and its bill."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from lookalikes.endpoints.world import PRICE, REQUEST, DeploymentWorld, open_deployment_world

from hubgate.domain.calls import Context, Embed
from hubgate.domain.deployments import Scaling
from hubgate.domain.endpoint import WakePolicy
from hubgate.domain.errors import Cause, InvalidRequest, NotConfirmed, NotPermitted, UpstreamError
from hubgate.service.deployments.acts import Edit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lookalikes.deployments import DeploymentsApi
    from lookalikes.hub_api import HubApi

    from hubgate.domain.endpoint import Endpoint
    from hubgate.settings import Settings

STAYS_UP = Scaling(min_replicas=1, max_replicas=1, zero_after=None)


async def registered(world: DeploymentWorld, scaling: Scaling = STAYS_UP, **settings: Any) -> Endpoint:
    """Create `e5`, wait until it is registered, and set its rules."""
    await world.create(scaling=scaling)
    await world.follow(120, step=60)
    endpoint = await world.gateway.registry.edit(replace(world.gateway.registry.find("e5"), **settings))
    await world.guard.round()
    return endpoint


async def call(world: DeploymentWorld, **context: Any) -> int:
    """Embed a text; returns the length of the result."""
    vectors = await world.gateway.inference.embed("e5", Embed(texts=["a"], context=Context(**context)))
    return len(vectors.items)


def acts(world: DeploymentWorld) -> list[str]:
    """The pauses and resumes that were requested."""
    return [one.rpartition("/")[2] for one in world.posted() if one.endswith(("/pause", "/resume"))]


class TestCosts:
    async def test_costs_are_within_a_minute_of_the_bill(self, world: DeploymentWorld) -> None:
        await world.create(scaling=Scaling(min_replicas=0, max_replicas=2, zero_after=15))
        await world.watch(60)
        await world.deployer.edit("hf", "acme", "e5", Edit(min_replicas=2), confirm_price=1.0)
        hosted = world.site.one("e5")
        hosted.call()
        await world.watch(30)
        await world.deployer.pause("hf", "acme", "e5")
        await world.watch(10)
        rows = await world.deployer.costs(days=3)
        assert {row.deployment for row in rows} == {"acme/e5"}
        assert hosted.minutes > 60
        assert sum(row.minutes for row in rows) == pytest.approx(hosted.minutes, abs=1.0)
        assert sum(row.dollars for row in rows) == pytest.approx(world.site.dollars, abs=PRICE / 60)
        assert world.guard.dollars() == {"acme/e5": pytest.approx(world.site.dollars, abs=PRICE / 60)}

    async def test_costs_of_a_deleted_endpoint_stay(self, world: DeploymentWorld) -> None:
        await registered(world)
        await world.watch(30)
        await world.gateway.registry.remove("e5")
        await world.deployer.delete("hf", "acme", "e5", typed="e5")
        await world.watch(30)
        rows = await world.deployer.costs(days=3)
        assert sum(row.dollars for row in rows) == pytest.approx(world.site.dollars, abs=PRICE / 60)

    async def test_costs_go_on_after_a_restart(
        self, settings: Settings, deployment_site: DeploymentsApi, hub_site: HubApi
    ) -> None:
        async with open_deployment_world(settings, deployment_site, hub_site.url) as first:
            await registered(first)
            await first.watch(10)
        async with open_deployment_world(settings, deployment_site, hub_site.url, former=first) as second:
            second.advance(3600)
            await second.watch(1)
            rows = await second.deployer.costs(days=3)
        assert sum(row.dollars for row in rows) == pytest.approx(deployment_site.dollars, abs=PRICE / 60)


class TestIdle:
    async def test_idle_endpoint_is_paused_once_and_a_call_resumes_it(self, world: DeploymentWorld) -> None:
        await registered(world, idle_minutes=20)
        await world.watch(18)
        assert acts(world) == []
        await call(world)
        await world.watch(19)
        assert acts(world) == []
        await world.watch(5)
        assert acts(world) == ["pause"]
        assert world.site.one("e5").state == "paused"
        waiting = asyncio.create_task(call(world))
        await asyncio.sleep(0)
        assert not waiting.done()
        await world.watch(4)
        assert await waiting == 1
        assert acts(world) == ["pause", "resume"]
        assert (await world.audited())["deployment.resume"]["reason"] == [None, "call"]
        assert (await world.audited())["deployment.pause"]["dollars_per_hour"] == [PRICE, 0.0]

    async def test_call_in_flight_prevents_the_pause(self, world: DeploymentWorld) -> None:
        await registered(world, idle_minutes=5)
        live = world.gateway.live.find("e5")
        with live:
            await world.watch(15)
            assert acts(world) == []
        await world.watch(3)
        assert acts(world) == []
        await world.watch(3)
        assert acts(world) == ["pause"]

    async def test_url_that_changed_is_used_after_the_resume(self, world: DeploymentWorld) -> None:
        world.site.new_url_after_resume = True
        before = await registered(world, idle_minutes=5)
        await world.watch(7)
        waiting = asyncio.create_task(call(world))
        await asyncio.sleep(0)
        await world.watch(4)
        assert await waiting == 1
        assert world.gateway.registry.find("e5").url != before.url

    async def test_person_s_pause_is_left_alone(self, world: DeploymentWorld) -> None:
        await registered(world, idle_minutes=5, wake=WakePolicy.CALL)
        await world.deployer.pause("hf", "acme", "e5")
        await world.watch(10)
        with pytest.raises(UpstreamError) as caught:
            await call(world)
        assert caught.value.cause is Cause.PAUSED
        await world.watch(10)
        assert acts(world) == ["pause"]

    async def test_call_that_cannot_wait_is_told_to_retry(self, world: DeploymentWorld) -> None:
        await registered(world, idle_minutes=5)
        await world.watch(7)
        with pytest.raises(UpstreamError, match="being resumed") as caught:
            await call(world, deadline=time.monotonic() + 2)
        assert caught.value.cause is Cause.WAKING
        assert caught.value.retryable


class TestWakePolicy:
    @pytest.mark.parametrize(
        ("fields", "context", "words"),
        [
            ({"wake": WakePolicy.NEVER}, {}, "wake policy is [never]"),
            ({}, {"bulk": True}, "bulk calls do not wake it"),
        ],
    )
    async def test_call_that_may_not_wake_is_refused(
        self, world: DeploymentWorld, fields: dict[str, Any], context: dict[str, Any], words: str
    ) -> None:
        await registered(world, idle_minutes=5, **fields)
        await world.watch(7)
        with pytest.raises(UpstreamError) as caught:
            await call(world, **context)
        assert caught.value.cause is Cause.PAUSED
        assert words in caught.value.message
        assert "hubgate deploy resume e5" in caught.value.remedy
        await world.watch(5)
        assert acts(world) == ["pause"]

    async def test_endpoint_at_zero_is_not_woken_by_bulk_calls_unless_told(
        self, world: DeploymentWorld
    ) -> None:
        await registered(world, Scaling(min_replicas=0, max_replicas=1, zero_after=15))
        await world.watch(20)
        assert world.site.one("e5").state == "scaledToZero"
        with pytest.raises(UpstreamError, match="scaled to zero, and bulk calls"):
            await call(world, bulk=True)
        assert world.site.one("e5").state == "scaledToZero"
        with pytest.raises(UpstreamError) as caught:
            await call(world, bulk=True, wake=True, deadline=time.monotonic() + 2)
        assert caught.value.cause is not Cause.PAUSED
        assert world.site.one("e5").state == "initializing"

    async def test_schedule_pauses_after_its_hours_and_resumes_before(self, world: DeploymentWorld) -> None:
        # The world begins on 1970-01-12, a Monday, at 13:46:40 UTC.
        hours: dict[str, Any] = {"wake": WakePolicy.SCHEDULE, "wake_hours": "mon-fri 08:00-18:00 UTC"}
        await registered(world, **hours)
        world.advance(4 * 3600)
        await world.watch(5)
        assert acts(world) == []
        world.advance(600)
        await world.watch(2)
        assert acts(world) == ["pause"]
        with pytest.raises(UpstreamError, match="outside its hours"):
            await call(world)
        world.advance(13.5 * 3600)
        await world.watch(1)
        assert acts(world) == ["pause"]
        world.advance(1800)
        await world.watch(4)
        assert acts(world) == ["pause", "resume"]
        assert await call(world) == 1

    async def test_end_pauses_whatever_happens_and_nothing_wakes_it(self, world: DeploymentWorld) -> None:
        await registered(world, ends_at="1970-01-12T14:00+00:00")
        with world.gateway.live.find("e5"):
            await world.watch(30)
        assert acts(world) == ["pause"]
        with pytest.raises(UpstreamError, match="its time is over"):
            await call(world)


class TestPreview:
    async def test_preview_says_what_the_next_round_does_and_does_nothing(
        self, world: DeploymentWorld
    ) -> None:
        await registered(world, idle_minutes=5)
        assert await world.guard.preview() == []
        world.advance(600)
        before = (world.posted(), await world.store.guard.watched(), await world.audited())
        assert await world.guard.preview() == [("acme/e5", "pause", "idle", PRICE, 0.0)]
        assert (world.posted(), await world.store.guard.watched(), await world.audited()) == before
        await world.watch(1)
        assert acts(world) == ["pause"]
        assert await world.guard.preview() == []
        waiting = asyncio.create_task(call(world))
        await asyncio.sleep(0)
        assert await world.guard.preview() == [("acme/e5", "resume", "call", 0.0, PRICE)]
        await world.watch(4)
        assert await waiting == 1


class TestFailures:
    async def test_failed_pause_is_retried_each_minute_and_told(
        self, world: DeploymentWorld, caplog: pytest.LogCaptureFixture
    ) -> None:
        await registered(world, idle_minutes=5)
        world.site.fail("failing", only="/pause")
        await world.watch(9)
        errors = [one.message for one in caplog.records if "could not be paused" in one.message]
        assert len(errors) >= 3
        assert "costs $0.067 an hour" in errors[0]
        assert world.guard.failing == {"acme/e5"}
        assert await call(world) == 1
        world.site.fail(None)
        await world.watch(7)
        assert world.guard.failing == frozenset()
        assert world.site.one("e5").state == "paused"

    async def test_unreadable_states_are_counted_when_they_come_back(self, world: DeploymentWorld) -> None:
        await registered(world)
        await world.watch(5)
        world.site.fail("failing", method="GET")
        await world.watch(10)
        world.site.fail(None)
        world.advance(60)
        await world.watch(2)
        rows = await world.deployer.costs(days=3)
        assert sum(row.dollars for row in rows) == pytest.approx(world.site.dollars, abs=PRICE / 60)


class TestBudget:
    @pytest.fixture
    async def frugal(
        self, settings: Settings, deployment_site: DeploymentsApi, hub_site: HubApi
    ) -> AsyncIterator[DeploymentWorld]:
        settings = replace(settings, max_dollars_per_hour=0.2)
        async with open_deployment_world(settings, deployment_site, hub_site.url) as world:
            yield world

    async def test_creation_over_the_limit_is_refused_with_the_sum(self, frugal: DeploymentWorld) -> None:
        await frugal.create(scaling=Scaling(min_replicas=0, max_replicas=2))
        with pytest.raises(NotPermitted) as caught:
            await frugal.create(
                replace(REQUEST, name="other"), scaling=Scaling(min_replicas=0, max_replicas=1)
            )
        assert caught.value.cause is Cause.OVER_BUDGET
        assert "$0.201 an hour with [other]" in caught.value.message
        assert "limit is $0.2" in caught.value.message
        assert list(frugal.site.hosted) == [("acme", "e5")]

    async def test_paused_endpoint_leaves_room_until_it_is_resumed(self, frugal: DeploymentWorld) -> None:
        await frugal.create(scaling=Scaling(min_replicas=0, max_replicas=2))
        await frugal.deployer.pause("hf", "acme", "e5")
        await frugal.create(replace(REQUEST, name="other"), scaling=Scaling(min_replicas=0, max_replicas=2))
        with pytest.raises(NotPermitted, match=r"could cost \$0.268"):
            await frugal.deployer.resume("hf", "acme", "e5", confirm_price=1.0)
        with pytest.raises(NotPermitted, match=r"could cost \$0.201"):
            await frugal.deployer.edit("hf", "acme", "other", Edit(max_replicas=3), confirm_price=1.0)
        assert frugal.site.one("e5").state == "paused"

    async def test_nothing_starts_a_paused_endpoint_without_its_price(self, frugal: DeploymentWorld) -> None:
        await frugal.create()
        await frugal.deployer.pause("hf", "acme", "e5")
        with pytest.raises(InvalidRequest, match="is paused: it costs nothing already"):
            await frugal.deployer.scale_to_zero("hf", "acme", "e5")
        with pytest.raises(NotConfirmed):
            await frugal.deployer.edit("hf", "acme", "e5", Edit(max_replicas=2))
        with pytest.raises(NotPermitted, match=r"could cost \$0.268"):
            await frugal.deployer.edit("hf", "acme", "e5", Edit(max_replicas=4), confirm_price=1.0)
        assert frugal.site.one("e5").state == "paused"
        assert frugal.site.one("e5").body["compute"]["scaling"]["maxReplica"] == 1

    async def test_price_that_is_unknown_is_not_guessed(self, frugal: DeploymentWorld) -> None:
        await frugal.create()
        frugal.site.hardware = [row for row in frugal.site.hardware if row.instance_type != "intel-spr"]
        with pytest.raises(NotPermitted, match="no price for e5"):
            await frugal.create(replace(REQUEST, name="other", instance=None, region=None, vendor="azure"))


async def test_three_gateways_pause_and_resume_once(
    settings: Settings, deployment_site: DeploymentsApi, hub_site: HubApi, migrated_url: str
) -> None:
    key = secrets.token_urlsafe(32)
    settings = replace(settings, database_url=migrated_url, secret_keys=(key,))
    async with AsyncExitStack() as opened:

        async def another(former: DeploymentWorld | None) -> DeploymentWorld:
            world = open_deployment_world(settings, deployment_site, hub_site.url, former=former)
            return await opened.enter_async_context(world)

        first = await another(None)
        hours: dict[str, Any] = {"wake": WakePolicy.SCHEDULE, "wake_hours": "mon-fri 08:00-18:00 UTC"}
        await registered(first, **hours)
        worlds = [first, await another(first), await another(first)]
        costs = []
        for seconds in (4.5 * 3600, 60, 13.6 * 3600, 60):
            deployment_site.advance(seconds)
            for world in worlds:
                world.now += seconds
            await asyncio.gather(*(world.guard.round() for world in worlds))
            costs.append(sum(row.minutes for row in await first.deployer.costs(days=9)))
        assert acts(first) == ["pause", "resume"]
        assert costs[0] == pytest.approx(deployment_site.one("e5").bill[0][1] / 60 + 4.5 * 60, abs=5)
        assert costs[1] == costs[2] == costs[0]


async def test_one_gateway_looks_for_all(
    settings: Settings, deployment_site: DeploymentsApi, hub_site: HubApi, migrated_url: str
) -> None:
    """The lease lasts for a minute of the database, in which only its owner looks again."""
    settings = replace(settings, database_url=migrated_url, secret_keys=(secrets.token_urlsafe(32),))
    async with AsyncExitStack() as opened:
        worlds: list[DeploymentWorld] = []
        for _ in range(3):
            former = worlds[0] if worlds else None
            another = open_deployment_world(settings, deployment_site, hub_site.url, former=former)
            worlds.append(await opened.enter_async_context(another))
            if former is None:
                await registered(worlds[0])
        asked = len(deployment_site.asked)
        for world in worlds[1:]:
            await world.guard.round()
        assert len(deployment_site.asked) == asked
        await worlds[0].guard.round()
        assert len(deployment_site.asked) > asked
        assert worlds[1].guard.dollars() == worlds[2].guard.dollars() != {}


async def test_limit_holds_between_gateways_that_create_at_the_same_moment(
    settings: Settings, deployment_site: DeploymentsApi, hub_site: HubApi, migrated_url: str
) -> None:
    key = secrets.token_urlsafe(32)
    settings = replace(
        settings, database_url=migrated_url, secret_keys=(key,), max_dollars_per_hour=1.5 * PRICE
    )
    async with AsyncExitStack() as opened:
        first = await opened.enter_async_context(
            open_deployment_world(settings, deployment_site, hub_site.url)
        )
        other = await opened.enter_async_context(
            open_deployment_world(settings, deployment_site, hub_site.url, former=first)
        )
        for _ in range(3):
            made = await asyncio.gather(
                first.create(scaling=STAYS_UP),
                other.create(replace(REQUEST, name="other"), scaling=STAYS_UP),
                return_exceptions=True,
            )
            (refused,) = [one for one in made if isinstance(one, BaseException)]
            assert isinstance(refused, NotPermitted)
            assert refused.cause is Cause.OVER_BUDGET
            ((_, name),) = deployment_site.hosted
            await first.deployer.delete("hf", "acme", name, typed=name)
            deployment_site.hosted.clear()


async def test_shared_database_leaves_idle_endpoints_to_hugging_face(
    settings: Settings, deployment_site: DeploymentsApi, hub_site: HubApi, migrated_url: str
) -> None:
    """Another gateway may have calls in flight that this one does not see."""
    settings = replace(settings, database_url=migrated_url, secret_keys=(secrets.token_urlsafe(32),))
    async with open_deployment_world(settings, deployment_site, hub_site.url) as world:
        await registered(world, idle_minutes=5)
        await world.watch(8)
        assert acts(world) == []
