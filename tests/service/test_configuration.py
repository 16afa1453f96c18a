"""A configuration is applied completely despite concurrent changes."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from scripted_gateway import authenticate
from stub_sources import StubSources, dedicated, until

from hubgate.domain.errors import EndpointNotFound
from hubgate.service.configuration import ConfigApplier, DesiredEndpoint, DesiredState
from hubgate.service.gateway import Gateway
from hubgate.service.inference.pipeline import Pipelines
from hubgate.service.keys.access import Access

if TYPE_CHECKING:
    from hubgate.store.store import SqlStore

RIGHTS = {"endpoints": (), "default_endpoint": None, "expires_at": None}


async def test_new_key_is_returned_though_an_endpoint_is_removed_while_applying(
    store: SqlStore, sources: StubSources
) -> None:
    gateway = Gateway(store, sources, Pipelines(None, time.monotonic))
    access, _ = await Access.load(store, None)
    drafts = (dedicated("first", fallback="second"), dedicated("second"))
    endpoints = {draft.name: DesiredEndpoint(endpoint=draft) for draft in drafts}
    sources.hold()
    wanted = DesiredState(endpoints=endpoints, keys={"dify": RIGHTS})
    applying = asyncio.create_task(ConfigApplier(gateway, access).apply(wanted))
    await sources.asked.wait()
    before, sources.go_on = sources.go_on, asyncio.Event()
    before.set()
    await until(lambda: len(sources.upstreams) == 2)
    await gateway.registry.remove("first")
    sources.go_on.set()
    first, second, key = await applying
    assert isinstance(first.failure, EndpointNotFound)
    assert second.failure is None
    assert authenticate(access, f"Bearer {key.key}").name == "dify"
    await gateway.close()
