"""A connection's token is used by the endpoints that name it, replaced in all of them, and kept while they exist."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from stub_sources import dedicated

from hubgate.domain.calls import Embed
from hubgate.domain.endpoint import Target
from hubgate.domain.errors import InUse, InvalidEndpoint, InvalidRequest, NotFound
from hubgate.domain.secret import Secret
from hubgate.service.gateway import Gateway
from hubgate.service.inference.pipeline import Pipelines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from stub_sources import StubSources

    from hubgate.store.store import SqlStore

CALL = Embed(texts=("a text",))
TOKEN, ANOTHER = Secret("hf_" + "one" * 8), Secret("hf_" + "two" * 8)


@pytest.fixture
async def gateway(store: SqlStore, sources: StubSources) -> AsyncIterator[Gateway]:
    opened = Gateway(store, sources, Pipelines(None, time.monotonic))
    yield opened
    await opened.close()


async def test_endpoint_uses_its_connections_token_and_stores_none(
    gateway: Gateway, store: SqlStore, sources: StubSources
) -> None:
    await gateway.connections.add("team", TOKEN)
    endpoint = await gateway.registry.register(dedicated(connection="team"), None)
    assert sources.upstreams[-1].token == TOKEN
    assert await store.endpoints() == [Target(endpoint)]
    assert gateway.registry.token_hint("e5") is None
    twin = await gateway.registry.clone("e5", "twin")
    assert twin.connection == "team"
    again = Gateway(store, sources, Pipelines(None, time.monotonic))
    await again.stored.load()
    assert sources.upstreams[-1].token == TOKEN
    assert [one.name for one in again.connections.all()] == ["team"]
    await again.close()


async def test_replaced_token_is_used_at_once_by_all_endpoints_of_the_connection(
    gateway: Gateway, sources: StubSources
) -> None:
    made = await gateway.connections.add("team", TOKEN)
    for name in ("one", "two"):
        await gateway.registry.register(dedicated(name, connection="team"), None)
    await gateway.registry.register(dedicated("own"), TOKEN)
    replaced = await gateway.connections.replace("team", ANOTHER)
    assert replaced.created_at == made.created_at
    opened = {actor.endpoint.name: actor.token for actor in sources.upstreams}
    assert opened == {"one": ANOTHER, "two": ANOTHER, "own": TOKEN}
    assert sources.detections == 3, "nobody was asked again"
    await gateway.inference.embed("one", CALL)


async def test_endpoint_uses_a_token_replaced_during_its_validation(
    gateway: Gateway, sources: StubSources
) -> None:
    await gateway.connections.add("team", TOKEN)
    sources.hold()
    registering = asyncio.create_task(gateway.registry.register(dedicated(connection="team"), None))
    await sources.asked.wait()
    await gateway.connections.replace("team", ANOTHER)
    sources.go_on.set()
    await registering
    assert sources.upstreams[-1].token == ANOTHER
    await gateway.inference.embed("e5", CALL)
    assert len(sources.upstreams[-1].calls) == 1


async def test_connection_removed_during_validation_is_detected_before_storing(
    gateway: Gateway, store: SqlStore, sources: StubSources
) -> None:
    await gateway.connections.add("team", TOKEN)
    sources.hold()
    registering = asyncio.create_task(gateway.registry.register(dedicated(connection="team"), None))
    await sources.asked.wait()
    await gateway.connections.remove("team")
    sources.go_on.set()
    with pytest.raises(InvalidEndpoint, match="No connection"):
        await registering
    assert await store.endpoints() == []
    assert [actor.closed for actor in sources.upstreams] == [1]


async def test_endpoint_switches_between_a_connection_and_its_own_token(
    gateway: Gateway, store: SqlStore, sources: StubSources
) -> None:
    await gateway.connections.add("team", TOKEN)
    endpoint = await gateway.registry.register(dedicated(), ANOTHER)
    joined = await gateway.registry.edit(replace(endpoint, connection="team"))
    assert (sources.detections, sources.upstreams[-1].token) == (2, TOKEN)
    assert await store.endpoints() == [Target(joined)]
    left = await gateway.registry.edit(replace(joined, connection=None), ANOTHER, keep_token=False)
    assert await store.endpoints() == [Target(left, ANOTHER)]
    joined = await gateway.registry.edit(replace(left, connection="team"))
    updated = await gateway.registry.update(joined, ANOTHER)
    assert updated.connection is None
    assert await store.endpoints() == [Target(updated, ANOTHER)]


async def test_removing_a_connection_in_use_fails_and_names_its_endpoints(gateway: Gateway) -> None:
    await gateway.connections.add("team", TOKEN)
    for name in ("one", "two"):
        await gateway.registry.register(dedicated(name, connection="team"), None)
    with pytest.raises(InUse, match="used by endpoints one, two"):
        await gateway.connections.remove("team")
    for name in ("one", "two"):
        await gateway.registry.remove(name)
    await gateway.connections.remove("team")
    assert gateway.connections.all() == []
    for verb in (gateway.connections.remove("team"), gateway.connections.replace("team", TOKEN)):
        with pytest.raises(NotFound):
            await verb


async def test_rejects_a_token_together_with_a_connection_and_an_unknown_connection(gateway: Gateway) -> None:
    await gateway.connections.add("team", TOKEN)
    with pytest.raises(InvalidEndpoint, match="a token and a connection"):
        await gateway.registry.register(dedicated(connection="team"), TOKEN)
    with pytest.raises(InvalidEndpoint, match=r"No connection is named \[nowhere\]"):
        await gateway.registry.register(dedicated(connection="nowhere"), None)


@pytest.mark.parametrize("text", ["", " \n ", "hf_with space", "hf_ü", "hf_one\nhf_\ttwo"])
async def test_rejects_a_token_that_no_header_can_carry(gateway: Gateway, text: str) -> None:
    with pytest.raises(InvalidRequest, match="Invalid token") as refused:
        await gateway.connections.add("team", Secret(text))
    assert text not in str(refused.value) or not text.strip()


async def test_connection_takes_one_token_per_line_and_a_unique_name(gateway: Gateway) -> None:
    made = await gateway.connections.add("team", Secret("hf_one\n hf_two\n"))
    assert made.token is not None
    assert [one.reveal() for one in made.token.each()] == ["hf_one", "hf_two"]
    with pytest.raises(InvalidRequest, match="already exists"):
        await gateway.connections.add("team", TOKEN)
    with pytest.raises(InvalidRequest, match="Invalid name of a connection"):
        await gateway.connections.add("My Team", TOKEN)
    assert gateway.connections.by_name["team"] == made


@pytest.mark.parametrize("turns", range(12))
async def test_no_endpoint_keeps_a_connection_removed_while_it_is_stored(
    gateway: Gateway, sources: StubSources, turns: int
) -> None:
    await gateway.connections.add("team", TOKEN)
    storing = asyncio.create_task(gateway.registry.register(dedicated(connection="team"), None))
    for _ in range(turns):
        await asyncio.sleep(0)
    told = await asyncio.gather(gateway.connections.remove("team"), storing, return_exceptions=True)
    assert len([error for error in told if isinstance(error, InUse | InvalidEndpoint)]) == 1
    for endpoint in gateway.registry.endpoints():
        assert gateway.connections.find(str(endpoint.connection)).token == TOKEN
