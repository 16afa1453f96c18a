"""Inference Endpoints that hubgate creates, against look-alikes of Hugging Face's APIs, with a clock to advance."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from running_gateway import copy_migrated

from hubgate.domain.secret import Secret
from hubgate.features.deployments.feature import assemble
from hubgate.features.deployments.fields import DeploymentForm
from hubgate.features.deployments.store import SqlDeployments
from hubgate.features.feature import Core
from hubgate.service.gateway import Gateway
from hubgate.service.inference.pipeline import Pipelines
from hubgate.service.keys.access import Access
from hubgate.store.store import SqlStore
from hubgate.upstreams.hub.client import open_hub
from hubgate.upstreams.sources import ModelSources
from lookalikes import lookalike
from lookalikes.deployments import DeploymentsApi, running_deployments
from lookalikes.hub_api import MANAGER_TOKEN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from hubgate.features.deployments.deployer import Deployer
    from hubgate.features.deployments.follower import Follower
    from hubgate.features.deployments.model import ManagedDeployment
    from hubgate.settings import Settings
    from lookalikes.hub_api import HubApi

E5 = "intfloat/e5-small-v2"
PRICE = 0.067
"""Dollars an hour of intel-spr/x2, as on Hugging Face's page of prices."""
REQUEST = DeploymentForm(model=E5, name="e5", instance="intel-spr/x2", region="us-east-1")


@dataclass
class DeploymentWorld:
    """One gateway's part in deployments."""

    site: DeploymentsApi
    store: SqlStore
    rows: SqlDeployments
    gateway: Gateway
    deployer: Deployer
    follower: Follower
    now: float = 1_000_000.0

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.site.advance(seconds)

    async def create(self, request: DeploymentForm = REQUEST, **changes: Any) -> ManagedDeployment:
        """Plan and create at once."""
        request = replace(request, **changes)
        plan = await self.deployer.plan(request)
        return await self.deployer.create(request, plan.confirm)

    async def audited(self) -> dict[str, Any]:
        """The changes of the newest entry of each verb in the audit log."""
        found = reversed(await self.store.audit.read(100))
        return {change.verb: change.changes for _, change in found}

    async def follow(self, seconds: float, step: float = 5.0) -> ManagedDeployment | None:
        """Follow deployments for some time; the newest record."""
        for _ in range(int(seconds / step)):
            self.advance(step)
            await self.follower.follow()
        found = await self.rows.all()
        return found[-1] if found else None

    def posted(self) -> list[str]:
        """The requests that could cost money: everything but GETs, without calls of served models."""
        return [
            f"{seen.method} {seen.path}"
            for seen in self.site.asked
            if seen.method != "GET" and not seen.path.startswith("/served/")
        ]


@asynccontextmanager
async def open_deployment_world(
    settings: Settings,
    site: DeploymentsApi,
    hub_url: str,
    *,
    wrap: Any = lambda store: store,
    former: DeploymentWorld | None = None,
) -> AsyncIterator[DeploymentWorld]:
    """Open a gateway's part.

    Args:
        settings: with its home.
        site: the API of Inference Endpoints.
        hub_url: the Hub's API.
        wrap: what stands around the store of deployments.
        former: the world before a restart, whose time goes on.
    """
    settings = replace(settings, hf_endpoint=hub_url, endpoints_api_url=f"{site.url}/v2")
    settings = replace(settings, endpoints_catalog_url=f"{site.url}/api/v1/catalog")
    copy_migrated(settings)
    store = await SqlStore.open(settings)
    hub = open_hub(settings)
    gateway = Gateway(store, ModelSources(settings), Pipelines(None, time.monotonic))
    await gateway.stored.load()
    if "hf" not in gateway.connections.by_name:
        await gateway.connections.add("hf", Secret(MANAGER_TOKEN), ["huggingface", site.url])
    rows = SqlDeployments(store.database)
    opened: list[DeploymentWorld] = []

    def clock() -> float:
        return opened[0].now

    access, _ = await Access.load(store, settings.admin_key)
    deployer, follower = assemble(Core(settings, store, gateway, access, hub), wrap(rows), clock)
    world = DeploymentWorld(site, store, rows, gateway, deployer, follower)
    opened.append(world)
    if former is not None:
        world.now = former.now
    try:
        yield world
    finally:
        await gateway.close()
        await hub.close()
        await store.close()


@pytest.fixture
def deployment_site() -> Iterator[DeploymentsApi]:
    with running_deployments() as site, lookalike("tei", name=E5) as tei:
        site.servers[E5] = tei.url
        yield site


@pytest.fixture
async def world(
    settings: Settings, deployment_site: DeploymentsApi, hub_site: HubApi
) -> AsyncIterator[DeploymentWorld]:
    async with open_deployment_world(settings, deployment_site, hub_site.url) as world:
        yield world
