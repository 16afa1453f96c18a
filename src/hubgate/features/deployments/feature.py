"""Inference Endpoints: what opens with the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from hubgate.features.deployments.accounts import Accounts, Budget
from hubgate.features.deployments.api import DeploymentsApi
from hubgate.features.deployments.deployer import Deployer
from hubgate.features.deployments.follower import Follower
from hubgate.features.deployments.hub import InferenceEndpoints
from hubgate.features.deployments.pages import AUDIT_VERBS, pages
from hubgate.features.deployments.planner import Planner
from hubgate.features.deployments.store import SCHEMA, SqlDeployments
from hubgate.features.feature import Core, Feature
from hubgate.web.console.page_context import NavigationEntry
from hubgate.web.parts import Parts


@asynccontextmanager
async def _open(core: Core) -> AsyncIterator[Parts]:
    store = SqlDeployments(core.store.database)
    deployer, follower = assemble(core, store, core.store.leases.now)

    async def price_per_hour(endpoint: str) -> float | None:
        prices = {one.register_as: one.price.replica for one in await store.all()}
        return prices.get(endpoint)

    core.gateway.ports.price_per_hour = price_per_hour
    yield Parts(
        api=DeploymentsApi(deployer, core.gateway).routes(),
        pages=pages(deployer, core.gateway),
        navigation=(NavigationEntry(20, "deployments", "/ui/deployments"),),
        audit_verbs=AUDIT_VERBS,
        background=(follower.run,),
    )


def assemble(core: Core, store: SqlDeployments, clock: Callable[[], float]) -> tuple[Deployer, Follower]:
    """What manages Inference Endpoints, and what follows those that it created. `clock`: seconds since the epoch."""
    api = InferenceEndpoints(core.hub.inference_endpoints)
    accounts = Accounts(core.gateway.connections, core.hub)
    follower = Follower(
        api=api,
        accounts=accounts,
        store=store,
        registry=core.gateway.registry,
        audit=core.store.audit,
        clock=clock,
    )
    deployer = Deployer(
        api=api,
        planner=Planner(api, core.hub, accounts, core.store.derived_key(b"deployment plans"), clock),
        accounts=accounts,
        store=store,
        registry=core.gateway.registry,
        audit=core.store.audit,
        budget=Budget(api, core.settings.max_dollars_per_hour, core.store.leases),
        on_change=follower.wake,
        clock=clock,
    )
    return deployer, follower


FEATURE = Feature(open=_open, folder=Path(__file__).parent, schema=SCHEMA)
