"""An alias leads calls to one endpoint at a time, and never to vectors that cannot be compared unless that is accepted."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from stub_sources import dedicated

from hubgate.domain.calls import Embed
from hubgate.domain.endpoint import Engine, Facts, InputType, Task
from hubgate.domain.errors import (
    AliasExists,
    BehindAlias,
    EndpointConflict,
    EndpointDisabled,
    EndpointExists,
    EndpointNotFound,
    InvalidRequest,
    IsAlias,
    NewVectors,
    NotFound,
)
from hubgate.domain.records import Alias, Key
from hubgate.features.aliases.aliases import Aliases, Move, affected_keys
from hubgate.features.aliases.feature import assemble
from hubgate.features.aliases.store import SqlAliases
from hubgate.service.gateway import Gateway
from hubgate.service.inference.pipeline import Pipelines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from stub_sources import StubSources

    from hubgate.domain.endpoint import Endpoint
    from hubgate.store.store import SqlStore

CALL = Embed(texts=("a text",))


@pytest.fixture
async def gateway(store: SqlStore, sources: StubSources) -> AsyncIterator[Gateway]:
    opened = Gateway(store, sources, Pipelines(None, time.monotonic))
    await opened.registry.register(dedicated("old"), None)
    await opened.registry.register(dedicated("new"), None)
    yield opened
    await opened.close()


@pytest.fixture
async def aliases(gateway: Gateway, store: SqlStore) -> Aliases:
    opened = assemble(store, gateway)
    await opened.set("search", "old")
    return opened


async def register(
    gateway: Gateway, sources: StubSources, draft: Endpoint, vector: tuple[float, ...]
) -> None:
    sources.vector = vector
    await gateway.registry.register(draft, None)


async def test_calls_in_flight_finish_at_the_old_endpoint_and_new_ones_go_to_the_new(
    gateway: Gateway, aliases: Aliases, sources: StubSources
) -> None:
    served = {one.endpoint.name: one for one in sources.upstreams}
    before = {name: len(one.calls) for name, one in served.items()}
    sources.hold()
    first = asyncio.create_task(gateway.inference.embed(gateway.registry.resolve("search").name, CALL))
    await sources.asked.wait()
    move = await aliases.set("search", "new")
    assert (move.alias.endpoint, move.former, move.new_vectors) == ("new", "old", None)
    second = asyncio.create_task(gateway.inference.embed(gateway.registry.resolve("search").name, CALL))
    sources.go_on.set()
    await asyncio.gather(first, second)
    assert {name: len(one.calls) - before[name] for name, one in served.items()} == {"old": 1, "new": 1}
    assert [len((await gateway.inference.embed(name, CALL)).items) for name in ("old", "new")] == [1, 1]


async def test_alias_and_endpoint_never_have_the_same_name(
    gateway: Gateway, aliases: Aliases, store: SqlStore
) -> None:
    draft = dedicated("search")
    for adding in (
        gateway.registry.register(draft, None),
        gateway.registry.register_disabled(draft, None),
        gateway.registry.clone("old", "search"),
    ):
        with pytest.raises(AliasExists, match=r"\[search\] is an alias of endpoint \[old\]"):
            await adding
    with pytest.raises(EndpointExists):
        await aliases.set("old", "new")
    elsewhere = Gateway(store, gateway._sources, Pipelines(None, time.monotonic))  # knows no alias yet
    with pytest.raises(AliasExists):
        await elsewhere.registry.register(draft, None)
    await aliases.remove("search")
    await gateway.registry.register(draft, None)
    assert gateway.registry.resolve("search").name == "search"
    with pytest.raises(EndpointExists):  # as if no gateway had the endpoint in memory
        await SqlAliases(store.database, store.audit, store.feed).put(
            Alias(name="search", endpoint="old", moved_at=0.0), None
        )
    await elsewhere.close()


async def test_endpoint_behind_an_alias_stays_until_the_alias_is_moved(
    gateway: Gateway, aliases: Aliases, store: SqlStore
) -> None:
    await aliases.set("find", "old")
    with pytest.raises(BehindAlias, match="behind the aliases find, search") as refused:
        await gateway.registry.remove("old")
    assert refused.value.remedy == "Move or remove the aliases first."
    with pytest.raises(BehindAlias):
        await store.remove_endpoint("old")
    await aliases.set("search", "new")
    await aliases.remove("find")
    await gateway.registry.remove("old")
    assert [endpoint.name for endpoint in gateway.registry.endpoints()] == ["new"]


async def test_alias_leads_to_an_endpoint_and_is_none(gateway: Gateway, aliases: Aliases) -> None:
    with pytest.raises(IsAlias, match=r"\[search\] is an alias of endpoint \[old\]. Use the name"):
        await aliases.set("find", "search")
    with pytest.raises(IsAlias):
        gateway.registry.find("search")
    with pytest.raises(EndpointNotFound):
        await aliases.set("find", "missing")
    with pytest.raises(InvalidRequest, match="Invalid name of an alias"):
        await aliases.set("No Name", "old")
    with pytest.raises(NotFound, match=r"No alias is named \[old\]"):
        await aliases.remove("old")


@pytest.mark.parametrize(
    ("vector", "given", "reason"),
    [
        ((0.8, 0.6), {}, "it returns another vector for a known text (cosine 0.9600)"),
        ((0.6, 0.8, 0.0), {}, "its dimensions are 3, not 2"),
        ((6.0, 8.0), {}, "its vectors have the norm 10, not 1: only one of the two normalises them"),
        (
            (0.6, 0.8),
            {"prefixes": {InputType.SEARCH: "query: "}},
            "its prefix of queries is 'query: ', not ''",
        ),
    ],
    ids=["another model", "other dimensions", "not normalized", "another prefix"],
)
async def test_alias_moves_to_new_vectors_only_if_they_are_accepted(
    gateway: Gateway,
    *,
    aliases: Aliases,
    sources: StubSources,
    vector: tuple[float, ...],
    given: dict[str, object],
    reason: str,
) -> None:
    await register(gateway, sources, dedicated("other", **given), vector)
    for _ in range(2):
        with pytest.raises(NewVectors) as refused:
            await aliases.set("search", "other")
        assert refused.value.message == (
            f"The vectors of endpoint [other] cannot be compared with those of [old]: {reason}."
        )
        assert "--accept-new-vectors" in refused.value.remedy
        assert gateway.registry.resolve("search").name == "old"
    move = await aliases.set("search", "other", accept_new_vectors=True)
    assert (move.former, move.new_vectors) == ("old", reason)
    with pytest.raises(NewVectors):
        await aliases.set("search", "new")


async def test_rounding_and_another_name_of_the_model_are_no_new_vectors(
    gateway: Gateway, aliases: Aliases, sources: StubSources
) -> None:
    sources.facts = replace(sources.facts, model="/models/e5", revision="def")
    await register(gateway, sources, dedicated("other"), (0.600001, 0.8))
    assert (await aliases.set("search", "other")).new_vectors is None


async def test_sparse_vectors_without_a_fingerprint_are_compared_by_the_name_of_the_model(
    gateway: Gateway,
    aliases: Aliases,
) -> None:
    for name, model in (("first", "org/a"), ("same", "org/a"), ("second", "org/b"), ("unknown", None)):
        facts = Facts(engine=Engine.TEI, model=model)
        sparse = replace(dedicated(name), task=Task.SPARSE_EMBEDDING, facts=facts)
        await gateway._store.add_endpoint(replace(gateway.live.find("old").target, endpoint=sparse))
    await gateway.stored.follow()
    await aliases.set("sparse", "first")
    await aliases.set("sparse", "same")
    for name in ("second", "unknown"):
        with pytest.raises(NewVectors):
            await aliases.set("sparse", name)


async def test_alias_keeps_its_task_and_moves_freely_between_rerankers(
    gateway: Gateway, aliases: Aliases
) -> None:
    for name in ("first", "second"):
        reranker = replace(
            dedicated(name), task=Task.RERANK, facts=Facts(engine=Engine.TEI, model=f"org/{name}")
        )
        await gateway._store.add_endpoint(replace(gateway.live.find("old").target, endpoint=reranker))
    await gateway.stored.follow()
    await aliases.set("ranks", "first")
    assert (await aliases.set("ranks", "second")).new_vectors is None
    with pytest.raises(InvalidRequest, match=r"serves rerank, but endpoint \[old\] serves text_embedding"):
        await aliases.set("ranks", "old", accept_new_vectors=True)


async def test_alias_does_not_move_to_an_endpoint_that_takes_no_calls(
    gateway: Gateway, aliases: Aliases
) -> None:
    await gateway.registry.edit(replace(gateway.registry.find("new"), enabled=False))
    with pytest.raises(EndpointDisabled):
        await aliases.set("search", "new", accept_new_vectors=True)


async def test_alias_survives_a_restart_and_is_in_the_audit_log(
    gateway: Gateway, aliases: Aliases, store: SqlStore, sources: StubSources
) -> None:
    await aliases.set("search", "new")
    await aliases.set("search", "new")  # changes nothing
    again = Gateway(store, sources, Pipelines(None, time.monotonic))
    await again.stored.load()
    followed = assemble(store, again)
    await followed.follow()
    assert again.registry.resolve("search").name == "new"
    assert followed.of("new") == ["search"]
    await followed.remove("search")
    log = [(change.verb, change.subject, change.changes) for _, change in await store.audit.read(3)]
    assert log == [
        ("alias.remove", "search", {"endpoint": ["new", None]}),
        ("alias.set", "search", {"endpoint": ["old", "new"]}),
        ("alias.set", "search", {"endpoint": [None, "old"]}),
    ]
    await again.close()


async def test_move_that_was_compared_with_another_endpoint_is_refused(
    gateway: Gateway, aliases: Aliases, store: SqlStore, sources: StubSources
) -> None:
    """Another gateway has moved the alias, and this one has not heard of it yet."""
    await register(gateway, sources, dedicated("other"), (0.8, 0.6))
    behind = Gateway(store, sources, Pipelines(None, time.monotonic))
    await behind.stored.load()
    late = assemble(store, behind)
    await late.follow()
    await aliases.set("search", "other", accept_new_vectors=True)
    with pytest.raises(EndpointConflict):
        await late.set("search", "new")
    await late.follow()
    with pytest.raises(NewVectors):
        await late.set("search", "new")
    await behind.close()


def test_keys_that_follow_or_lose_an_alias_are_named() -> None:
    def key(name: str, *endpoints: str) -> Key:
        return Key(id=name, name=name, digest=b"", created_at=0.0, endpoints=endpoints)

    keys = [
        key("all"),
        key("by alias", "search"),
        key("by old", "old"),
        key("by both", "old", "new"),
        key("by new", "new"),
        key("other", "x"),
    ]
    alias = Alias(name="search", endpoint="new", moved_at=0.0)
    assert affected_keys(Move(alias, "old"), keys) == (["by alias"], ["by old"])
    assert affected_keys(Move(alias, None), keys) == (["by alias"], [])
    assert affected_keys(Move(alias, "new"), keys) == ([], [])
