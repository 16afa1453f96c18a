"""The hourly limit on the costs of Inference Endpoints, against the look-alike of the management API."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from lookalikes.endpoints.world import PRICE, REQUEST, DeploymentWorld, open_deployment_world

from hubgate.domain.errors import Cause, InvalidRequest, NotConfirmed, NotPermitted
from hubgate.features.deployments.fields import DeploymentEditForm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lookalikes.deployments import DeploymentsApi
    from lookalikes.hub_api import HubApi

    from hubgate.settings import Settings

STAYS_UP: dict[str, Any] = {"min_replicas": 1, "max_replicas": 1, "zero_after": None}


class TestBudget:
    @pytest.fixture
    async def frugal(
        self, settings: Settings, deployment_site: DeploymentsApi, hub_site: HubApi
    ) -> AsyncIterator[DeploymentWorld]:
        settings = replace(settings, max_dollars_per_hour=0.2)
        async with open_deployment_world(settings, deployment_site, hub_site.url) as world:
            yield world

    async def test_creation_over_the_limit_is_refused_with_the_sum(self, frugal: DeploymentWorld) -> None:
        await frugal.create(min_replicas=0, max_replicas=2)
        with pytest.raises(NotPermitted) as caught:
            await frugal.create(replace(REQUEST, name="other"), min_replicas=0, max_replicas=1)
        assert caught.value.cause is Cause.OVER_BUDGET
        assert "$0.201 an hour with [other]" in caught.value.message
        assert "limit is $0.2" in caught.value.message
        assert list(frugal.site.hosted) == [("acme", "e5")]

    async def test_paused_endpoint_leaves_room_until_it_is_resumed(self, frugal: DeploymentWorld) -> None:
        await frugal.create(min_replicas=0, max_replicas=2)
        await frugal.deployer.pause("hf", "acme", "e5")
        await frugal.create(replace(REQUEST, name="other"), min_replicas=0, max_replicas=2)
        with pytest.raises(NotPermitted, match=r"could cost \$0.268"):
            await frugal.deployer.resume("hf", "acme", "e5", confirm_price=1.0)
        with pytest.raises(NotPermitted, match=r"could cost \$0.201"):
            await frugal.deployer.edit(
                "hf", "acme", "other", DeploymentEditForm(max_replicas=3), confirm_price=1.0
            )
        assert frugal.site.one("e5").state == "paused"

    async def test_nothing_starts_a_paused_endpoint_without_its_price(self, frugal: DeploymentWorld) -> None:
        await frugal.create()
        await frugal.deployer.pause("hf", "acme", "e5")
        with pytest.raises(InvalidRequest, match="is paused: it costs nothing already"):
            await frugal.deployer.scale_to_zero("hf", "acme", "e5")
        with pytest.raises(NotConfirmed):
            await frugal.deployer.edit("hf", "acme", "e5", DeploymentEditForm(max_replicas=2))
        with pytest.raises(NotPermitted, match=r"could cost \$0.268"):
            await frugal.deployer.edit(
                "hf", "acme", "e5", DeploymentEditForm(max_replicas=4), confirm_price=1.0
            )
        assert frugal.site.one("e5").state == "paused"
        assert frugal.site.one("e5").body["compute"]["scaling"]["maxReplica"] == 1

    async def test_price_that_is_unknown_is_not_guessed(self, frugal: DeploymentWorld) -> None:
        await frugal.create()
        frugal.site.hardware = [row for row in frugal.site.hardware if row.instance_type != "intel-spr"]
        with pytest.raises(NotPermitted, match="no price for e5"):
            await frugal.create(replace(REQUEST, name="other", instance=None, region=None, vendor="azure"))


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
                first.create(**STAYS_UP),
                other.create(replace(REQUEST, name="other"), **STAYS_UP),
                return_exceptions=True,
            )
            (refused,) = [one for one in made if isinstance(one, BaseException)]
            assert isinstance(refused, NotPermitted)
            assert refused.cause is Cause.OVER_BUDGET
            ((_, name),) = deployment_site.hosted
            await first.deployer.delete("hf", "acme", name, typed=name)
            deployment_site.hosted.clear()
